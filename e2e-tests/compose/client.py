"""A client outside of the containers: ``client.py ORDER_PORT place N | pending SECONDS | settled STATE``.

``place`` prints the ids of N orders; the other two read ids. Standard library only.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

DEADLINE_SECONDS = 120
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(port: int | str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with OPENER.open(request, timeout=15) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def place(port: str, count: int) -> None:
    consumer = ask(
        os.environ["FTGO_CONSUMER_PORT"],
        "/consumers",
        {"name": {"firstName": "Ida", "lastName": "Outside"}, "email": "ida@example.com"},
    )["consumerId"]
    restaurant = known_restaurant(port)
    for _ in range(count):
        body = {
            "consumerId": consumer,
            "restaurantId": restaurant,
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
            "deliveryAddress": {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94612"},
            "lineItems": [{"menuItemId": "1", "quantity": 1}],
        }
        print(ask(port, "/orders", body)["orderId"])


def known_restaurant(port: str) -> str:
    """One that order has heard of; remembered, because Kafka may be away when it is asked for again."""
    file = os.environ["FTGO_E2E_RESTAURANT"]
    if os.path.exists(file):
        with open(file) as remembered:
            return remembered.read()
    menu = {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"}]}
    address = {"street1": "2 Main Street", "city": "Oakland", "state": "CA", "zip": "94612"}
    body = {"name": "Outside", "address": address, "menu": menu}
    made: str = ask(os.environ["FTGO_KITCHEN_PORT"], "/restaurants", body)["id"]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            ask(port, f"/restaurants/{made}")
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            break
    with open(file, "w") as remembered:
        remembered.write(made)
    return made


def state(port: str, order: str) -> str:
    return str(ask(port, f"/orders/{order}")["state"])


def pending(port: str, orders: list[str], seconds: float) -> None:
    """None of them may settle within that time: somebody whom they need is away."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        settled = [order for order in orders if state(port, order) != "APPROVAL_PENDING"]
        if settled:
            sys.exit(f"settled although a participant is away: {settled}")
        time.sleep(0.2)


def settled(port: str, orders: list[str], expected: str) -> None:
    """All of them settle in that state before the deadline. The service itself may be starting."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    states: dict[str, str] = {}
    while time.monotonic() < deadline:
        try:
            states = {order: state(port, order) for order in orders}
        except OSError as error:
            states = {"error": str(error)}
        if set(states.values()) == {expected}:
            return
        time.sleep(0.2)
    sys.exit(f"not {expected} within {DEADLINE_SECONDS} s: {states}")


def main() -> None:
    port, verb, argument = sys.argv[1:]
    if verb == "place":
        place(port, int(argument))
        return
    orders = sys.stdin.read().split()
    if not orders:
        sys.exit("no orders to look at")
    if verb == "pending":
        pending(port, orders, float(argument))
    else:
        settled(port, orders, argument)


if __name__ == "__main__":
    main()
