"""A client inside of the cluster, who repeats nothing: orders at a steady rate, and a look at every service.

Runs in a pod, with the image of the tools: ``python load.py``. Reads FTGO_<SERVICE>_URL and FTGO_LOAD_RATE, rounds a
second: an order, a look at it, and a look at each of the other three services. Half of the rounds open a connection for
each request; the others keep theirs, as services do among each other.

Prints a line of JSON for all that ``client.py`` has to know: ``{"ready": true}``; ``{"failed": ...}`` for each request
without an answer, or with a 5xx; ``{"settled": ...}``; ``{"count": ...}`` once a second. SIGTERM: no more orders, then
``{"end": ...}`` as soon as all orders have settled, or after 60 s. With FTGO_LOAD_ROUNDS it ends after so many rounds,
and waits for none to settle. All times are seconds since 1970.
"""

import asyncio
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

URLS = {name: os.environ[f"FTGO_{name.upper()}_URL"] for name in ("consumer", "order", "kitchen", "accounting")}
ADDRESS = {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"}
MENU = [{"id": "1", "name": "Lasagne", "price": "12.80"}]
SETTLED = {"APPROVED", "REJECTED"}
LAST_WAIT_SECONDS = 60


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


class Load:
    def __init__(self, fresh: httpx.AsyncClient, kept: httpx.AsyncClient) -> None:
        self.clients = {"fresh": fresh, "kept": kept}
        self.requests = 0
        self.placed = 0
        self.pending: dict[str, float] = {}
        self.settled: dict[str, int] = {}
        self.last_settled = 0.0

    async def ask(self, kind: str, method: str, service: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """The answer, or None when there was none that a client could use. Not repeated."""
        self.requests += 1
        began = time.time()
        try:
            answer = await self.clients[kind].request(method, f"{URLS[service]}{path}", json=body)
        except httpx.HTTPError as error:
            why = repr(error)
        else:
            if answer.status_code < 500:
                found: dict[str, Any] = answer.json()
                return found
            why = f"{answer.status_code} {answer.text[:200]}"
        say(failed=f"{kind} {method} {service}{path}", why=why, at=began, seconds=round(time.time() - began, 3))
        return None

    async def prepare(self) -> None:
        """A consumer whom all services know, with credit enough, and a restaurant."""
        person = {"name": {"firstName": "Lena", "lastName": "Load"}, "orderLimit": "100.00"}
        self.consumer = str((await self.until("POST", "consumer", "/consumers", person))["consumerId"])
        await self.until("GET", "accounting", f"/accounts/{self.consumer}")
        limit = {"creditLimit": "9999999.00"}
        await self.until("PUT", "accounting", f"/accounts/{self.consumer}/credit-limit", limit)
        restaurant = {"name": "Cluster Kitchen", "address": ADDRESS, "menu": {"menuItems": MENU}}
        self.restaurant = str((await self.until("POST", "kitchen", "/restaurants", restaurant))["id"])
        await self.until("GET", "order", f"/consumers/{self.consumer}")
        await self.until("GET", "order", f"/restaurants/{self.restaurant}")

    async def until(self, method: str, service: str, path: str, body: Any = None) -> dict[str, Any]:
        """Before the load begins: what is not known yet will be."""
        for _ in range(300):
            try:
                answer = await self.clients["fresh"].request(method, f"{URLS[service]}{path}", json=body)
                if answer.is_success:
                    found: dict[str, Any] = answer.json() if answer.content else {}
                    return found
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
        raise SystemExit(f"{method} {service}{path} does not succeed")

    async def round(self, kind: str) -> None:
        body = {
            "consumerId": self.consumer,
            "restaurantId": self.restaurant,
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds"),
            "deliveryAddress": ADDRESS,
            "lineItems": [{"menuItemId": "1", "quantity": 1}],
        }
        if order := await self.ask(kind, "POST", "order", "/orders", body):
            self.placed += 1
            self.pending[str(order["orderId"])] = time.time()
            await self.ask(kind, "GET", "order", f"/orders/{order['orderId']}")
        await self.ask(kind, "GET", "consumer", f"/consumers/{self.consumer}")
        await self.ask(kind, "GET", "kitchen", f"/restaurants/{self.restaurant}")
        await self.ask(kind, "GET", "accounting", f"/accounts/{self.consumer}")

    async def watch(self) -> None:
        """Asks for the pending orders; these requests are not counted, and are repeated."""
        while True:
            for order in list(self.pending):
                try:
                    answer = await self.clients["fresh"].get(f"{URLS['order']}/orders/{order}")
                except httpx.HTTPError:
                    break
                if answer.is_success and (state := answer.json()["state"]) in SETTLED:
                    del self.pending[order]
                    self.settled[state] = self.settled.get(state, 0) + 1
                    self.last_settled = time.time()
                    say(settled=order, at=self.last_settled)
            await asyncio.sleep(0.25)

    def count(self) -> dict[str, Any]:
        oldest = time.time() - min(self.pending.values()) if self.pending else 0.0
        return {
            "at": time.time(), "requests": self.requests, "placed": self.placed, "pending": len(self.pending),
            "oldest": round(oldest, 2), "settled": self.settled, "last_settled": self.last_settled,
        }  # fmt: skip

    async def tell(self) -> None:
        while True:
            say(count=self.count())
            await asyncio.sleep(1)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    rate = float(os.environ.get("FTGO_LOAD_RATE", "4"))
    most = int(os.environ.get("FTGO_LOAD_ROUNDS", "0"))
    none_kept = httpx.Limits(max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False, limits=none_kept) as fresh,
        httpx.AsyncClient(timeout=30, trust_env=False) as kept,
        asyncio.TaskGroup() as tasks,
    ):
        load = Load(fresh, kept)
        await load.prepare()
        say(ready=True)
        others = [tasks.create_task(load.watch()), tasks.create_task(load.tell())]
        rounds: list[asyncio.Task[None]] = []
        while not stop.is_set() and (most == 0 or len(rounds) < most):
            kind = "fresh" if len(rounds) % 2 else "kept"
            rounds.append(tasks.create_task(load.round(kind)))
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*rounds)
        deadline = time.monotonic() + (0 if most else LAST_WAIT_SECONDS)
        while load.pending and time.monotonic() < deadline:  # noqa: ASYNC110 - who settles them is not here
            await asyncio.sleep(0.1)
        for other in others:
            other.cancel()
        say(end=load.count(), unsettled=list(load.pending))


if __name__ == "__main__":
    asyncio.run(main())
