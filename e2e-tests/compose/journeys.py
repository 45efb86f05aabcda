"""Ways of an order through all four services, over REST alone. ``python -m journeys [NAME ...]``; without names, all.

Reads FTGO_<SERVICE>_URL and the ids of the seed from FTGO_SEED_FILE. Exit code 1 with a sentence when a journey ends
elsewhere than it should.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

WAIT_SECONDS = 30
JOURNEYS: list[Callable[["Town"], None]] = []


class Astray(Exception):
    """A journey did not end where it should."""


class Town:
    """The services as a client sees them."""

    def __init__(self) -> None:
        self.ids: dict[str, dict[str, str]] = json.loads(Path(os.environ["FTGO_SEED_FILE"]).read_text())
        self.client = httpx.Client(timeout=WAIT_SECONDS + 10, trust_env=False)

    def ask(self, method: str, service: str, path: str, expected: int, **request: Any) -> dict[str, Any]:
        url = os.environ[f"FTGO_{service.upper()}_URL"] + path
        answer = self.client.request(method, url, **request)
        if answer.status_code != expected:
            raise Astray(f"{method} {url}: {answer.status_code}, expected {expected}: {answer.text[:300]}")
        content: dict[str, Any] = answer.json()
        return content

    def order_request(self, consumer: str, quantity: int = 2) -> dict[str, Any]:
        return {
            "consumerId": self.ids["consumers"][consumer],
            "restaurantId": self.ids["restaurants"]["trattoria"],
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
            "deliveryAddress": {"street1": "9 Amazing View", "city": "Oakland", "state": "CA", "zip": "94612"},
            "lineItems": [{"menuItemId": "1", "quantity": quantity}],
        }

    def place(self, consumer: str) -> str:
        accepted = self.ask("POST", "order", "/orders", 202, json=self.order_request(consumer))
        say(f"order {accepted['orderId']} of {accepted['orderTotal']} is {accepted['state']}")
        return str(accepted["orderId"])

    def settles(self, order: str, state: str) -> dict[str, Any]:
        """The order, once it is settled; at once and for good in ``state``."""
        began = time.monotonic()
        found = self.ask("GET", "order", f"/orders/{order}", 200, headers={"Prefer": f"wait={WAIT_SECONDS}"})
        if found["state"] != state:
            raise Astray(f"order {order} is {found['state']}, expected {state}: {found}")
        say(f"{state} {(time.monotonic() - began) * 1000:.0f} ms later {found.get('rejection', '')}")
        return found

    def authorized(self, consumer: str) -> str:
        account = self.ask("GET", "accounting", f"/accounts/{self.ids['consumers'][consumer]}", 200)
        return str(account["authorized"])


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def journey(function: Callable[[Town], None]) -> Callable[[Town], None]:
    JOURNEYS.append(function)
    return function


@journey
def approved(town: Town) -> None:
    """A consumer with credit orders; consumer, kitchen and accounting agree."""
    order = town.place("good")
    town.settles(order, "APPROVED")
    ticket = town.ask("GET", "kitchen", f"/tickets/{order}", 200)
    say(f"the kitchen has a ticket for it, {ticket['state']}")
    if ticket["state"] != "AWAITING_ACCEPTANCE":
        raise Astray(f"ticket {order} is {ticket['state']}")


@journey
def declined(town: Town) -> None:
    """A card without enough credit: the order is rejected, and what was begun is undone."""
    order = town.place("poor")
    found = town.settles(order, "REJECTED")
    ticket = town.ask("GET", "kitchen", f"/tickets/{order}", 200)
    say(f"its ticket is {ticket['state']}")
    if ticket["state"] != "CANCELLED" or found["rejection"]["service"] != "accounting":
        raise Astray(f"the refusal left {ticket} and {found}")


@journey
def cancelled(town: Town) -> None:
    """An approved order is cancelled: no ticket, no charge."""
    before = town.authorized("good")
    order = town.place("good")
    town.settles(order, "APPROVED")
    if town.authorized("good") == before:
        raise Astray("approved, but nothing is authorized")
    town.ask("POST", "order", f"/orders/{order}/cancel", 202)
    town.settles(order, "CANCELLED")
    say(f"authorized: {before} before, {town.authorized('good')} afterwards")
    ticket = town.ask("GET", "kitchen", f"/tickets/{order}", 200)
    if town.authorized("good") != before or ticket["state"] != "CANCELLED":
        raise Astray("the cancellation left something behind")


@journey
def revised(town: Town) -> None:
    """An approved order gets other lines: a new total, in the order and in the authorization."""
    order = town.place("good")
    total = town.settles(order, "APPROVED")["orderTotal"]
    body = {"revisedOrderLineItems": [{"menuItemId": "1", "quantity": 3}]}
    town.ask("POST", "order", f"/orders/{order}/revise", 202, json=body)
    found = town.settles(order, "APPROVED")
    say(f"the total was {total}, now it is {found['orderTotal']}")
    if found["orderTotal"] == total:
        raise Astray(f"the revision changed nothing: {found}")
    town.ask("POST", "order", f"/orders/{order}/cancel", 202)
    town.settles(order, "CANCELLED")


@journey
def cooked(town: Town) -> None:
    """The kitchen accepts the ticket, cooks, and the courier picks it up."""
    order = town.place("good")
    town.settles(order, "APPROVED")
    ready_by = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
    steps: list[tuple[str, str, dict[str, str] | None]] = [
        ("accept", "ACCEPTED", {"readyBy": ready_by}),
        ("preparing", "PREPARING", None),
        ("ready", "READY_FOR_PICKUP", None),
        ("picked-up", "PICKED_UP", None),
    ]
    for step, state, body in steps:
        ticket = town.ask("POST", "kitchen", f"/tickets/{order}/{step}", 200, json=body)
        say(f"ticket: {ticket['state']}")
        if ticket["state"] != state:
            raise Astray(f"after {step} the ticket is {ticket['state']}")


@journey
def blocked(town: Town) -> None:
    """A blocked consumer is refused at once: Order knows from its own copy."""
    problem = town.ask("POST", "order", "/orders", 422, json=town.order_request("blocked"))
    say(f"refused: {problem['type']}")


@journey
def repeated(town: Town) -> None:
    """The same request twice, with one Idempotency-Key: one order."""
    key = {"Idempotency-Key": f"journey-{time.time_ns()}"}
    request = town.order_request("good", quantity=1)
    first, second = (town.ask("POST", "order", "/orders", 202, json=request, headers=key) for _ in range(2))
    say(f"two requests, order {first['orderId']}")
    if first != second:
        raise Astray(f"two answers to one request: {first}, {second}")
    town.settles(first["orderId"], "APPROVED")


def main(names: list[str]) -> int:
    known = {function.__name__: function for function in JOURNEYS}
    if unknown := set(names) - set(known):
        print(f"no such journey: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if not Path(os.environ["FTGO_SEED_FILE"]).exists():
        print("FTGO is not up yet: docker compose up -d --build --wait", file=sys.stderr)
        return 1
    town = Town()
    failed = 0
    for name in names or known:
        print(f"{name}: {known[name].__doc__}", flush=True)
        try:
            known[name](town)
        except (Astray, httpx.HTTPError) as error:
            failed += 1
            print(f"  FAILED: {error!r}", file=sys.stderr, flush=True)
    print(f"{len(names or known) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
