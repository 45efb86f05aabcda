"""The workload: customers, cooks and owners who act at random, and a history of all that they asked and were told.

Three outcomes, never two: ok (2xx), fail (4xx: it has not happened) and unknown (5xx, a time-out, a broken connection:
it may have happened). An unknown order is asked for again with the same key or id, as a careful client does.
"""

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from journal import Journal
from stand import Stand

_IN_FLIGHT = 60  # customers at a time; more arrivals are turned away, and counted
_ITEMS = 6
_ADDRESS = {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"}


@dataclass
class Tally:
    """What the progress line shows."""

    orders: int = 0
    settled: int = 0
    unknown: int = 0
    turned_away: int = 0


@dataclass
class Workload:
    """How the customers behave. ``rate`` is in orders per second."""

    rate: float = 8.0
    poor: float = 0.15
    repeats: float = 0.3
    puts: float = 0.25
    cancels: float = 0.2
    revises: float = 0.2
    cooks: float = 0.4
    owner_changes: float = 1.5  # per second: renames, blocks, menus
    tally: Tally = field(default_factory=Tally)


class Client:
    """One client: asks one thing after the other, and everything is written down before and after."""

    def __init__(self, name: str, http: httpx.AsyncClient, stand: Stand, history: Journal) -> None:
        self.name = name
        self._http = http
        self._stand = stand
        self._history = history

    async def ask(
        self,
        what: str,
        service: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        about: str | None = None,
    ) -> tuple[str, int, Any]:
        """Send a request; returns outcome, status (0 without an answer) and body."""
        operation = uuid.uuid4().hex
        asked = {"op": operation, "client": self.name, "what": what, "service": service, "about": about}
        self._history.write(kind="invoke", **asked, method=method, path=path, key=key, body=body)
        sent = dict(headers or {}) | ({"Idempotency-Key": key} if key else {})
        outcome, status, answer = "unknown", 0, None
        try:
            url = f"{self._stand.urls[service]}{path}"
            response = await self._http.request(method, url, json=body, headers=sent)
            status = response.status_code
            answer = response.json() if response.content else None
            outcome = "ok" if status < 300 else "fail" if status < 500 else "unknown"
        except (httpx.HTTPError, ValueError) as error:
            answer = repr(error)
        finally:
            self._history.write(kind=outcome, **asked, status=status, answer=answer)
        return outcome, status, answer

    async def follow(self, order: str, seconds: float) -> None:
        """Read the order's event stream; each event is one line of the history."""
        asked = {"op": uuid.uuid4().hex, "client": self.name, "what": "stream", "service": "order", "about": order}
        self._history.write(kind="invoke", **asked, method="GET", path=f"/orders/{order}/events")
        outcome = "unknown"
        try:
            async with (
                asyncio.timeout(seconds),
                self._http.stream("GET", f"{self._stand.urls['order']}/orders/{order}/events") as response,
            ):
                outcome = "ok" if response.status_code < 300 else "fail" if response.status_code < 500 else "unknown"
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and outcome == "ok":
                        event = json.loads(line.removeprefix("data: "))
                        self._history.write(kind="event", **asked, answer=event)
        except (httpx.HTTPError, TimeoutError):
            pass
        self._history.write(kind=outcome, **asked)


class Generator:
    """Open loop: customers arrive at their rate, whatever became of those before. Bounded: when too many are inside,
    the next one is turned away."""

    def __init__(self, stand: Stand, history: Journal, workload: Workload, seed: int) -> None:
        self.workload = workload
        self._stand = stand
        self._history = history
        self._random = random.Random(f"{seed} generator")
        self._consumers: list[str] = []
        self._restaurants: list[str] = []
        self._menus: dict[str, int] = {}
        self._inside: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self, seconds: float) -> None:
        """Let customers come for that long, then wait until all have gone (at most a minute)."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        async with httpx.AsyncClient(timeout=12, trust_env=False, limits=limits) as http:
            await self._furnish(http)
            end = time.monotonic() + seconds
            owner = asyncio.create_task(self._own(http, end))
            try:
                await self._let_in(http, end)
                await owner
                if self._inside:
                    await asyncio.wait(self._inside, timeout=60)
            finally:
                tasks = [owner, *self._inside]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _let_in(self, http: httpx.AsyncClient, end: float) -> None:
        due = time.monotonic()
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(self._inside) < _IN_FLIGHT:
                task = asyncio.create_task(self._customer(self._client(http, "customer")))
                self._inside.add(task)
                task.add_done_callback(self._inside.discard)
            else:
                self.workload.tally.turned_away += 1
            due += self._random.expovariate(self.workload.rate)

    def _client(self, http: httpx.AsyncClient, role: str) -> Client:
        self._number += 1
        return Client(f"{role}-{self._number}", http, self._stand, self._history)

    # -- owners ----------------------------------------------------------------------------------------------------

    async def _furnish(self, http: httpx.AsyncClient) -> None:
        """Two restaurants and a few consumers, before the customers come."""
        owner = self._client(http, "owner")
        while len(self._restaurants) < 2:
            menu = {"menuItems": self._menu(0)}
            body = {"name": "Ajanta", "address": _ADDRESS, "menu": menu}
            outcome, _, answer = await owner.ask("restaurant", "kitchen", "POST", "/restaurants", body)
            if outcome == "ok":
                self._restaurants.append(answer["id"])
        async with asyncio.timeout(60):
            for restaurant in self._restaurants:
                while (await owner.ask("known", "order", "GET", f"/restaurants/{restaurant}"))[0] != "ok":  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        for _ in range(6):
            await self._register(owner)

    def _menu(self, revision: int) -> list[dict[str, str]]:
        prices = [f"{n + revision % 3}.{revision % 90 + 10}" for n in range(1, _ITEMS + 1)]
        return [{"id": str(n), "name": f"Dish {n}", "price": price} for n, price in enumerate(prices, 1)]

    async def _register(self, client: Client) -> str | None:
        poor = self._random.random() < self.workload.poor
        body = {
            "name": {"firstName": "Chaos", "lastName": uuid.uuid4().hex[:8]},
            "orderLimit": "12.00" if poor else "100000.00",
        }
        outcome, _, answer = await client.ask("register", "consumer", "POST", "/consumers", body)
        if outcome != "ok":
            return None
        consumer: str = answer["consumerId"]
        self._consumers.append(consumer)
        del self._consumers[:-40]
        return consumer

    async def _own(self, http: httpx.AsyncClient, end: float) -> None:
        """Rename, block and unblock consumers, revise menus: what the replicas have to follow."""
        client, choose = self._client(http, "owner"), self._random
        while time.monotonic() < end:
            await asyncio.sleep(choose.expovariate(self.workload.owner_changes))
            match choose.choices(["rename", "menu", "block", "register"], [5, 3, 1, 2])[0]:
                case "rename" if self._consumers:
                    name = {"firstName": "Renamed", "lastName": uuid.uuid4().hex[:8]}
                    consumer = choose.choice(self._consumers)
                    await client.ask("rename", "consumer", "PUT", f"/consumers/{consumer}/name", name)
                case "menu":
                    restaurant = choose.choice(self._restaurants)
                    self._menus[restaurant] = self._menus.get(restaurant, 0) + 1
                    menu = {"menu": {"menuItems": self._menu(self._menus[restaurant])}}
                    await client.ask("menu", "kitchen", "PUT", f"/restaurants/{restaurant}/menu", menu)
                case "block" if self._consumers:
                    consumer = choose.choice(self._consumers)
                    await client.ask("block", "consumer", "POST", f"/consumers/{consumer}/block")
                    if choose.random() < 0.7:
                        await client.ask("unblock", "consumer", "POST", f"/consumers/{consumer}/unblock")
                case _:
                    await self._register(client)

    # -- customers -------------------------------------------------------------------------------------------------

    async def _customer(self, client: Client) -> None:
        """One visit: an order, perhaps repeated; then watching it, changing it, or cooking it."""
        choose, load = self._random, self.workload
        consumer = choose.choice(self._consumers) if self._consumers and choose.random() < 0.8 else None
        consumer = consumer or await self._register(client)
        if consumer is None:
            return
        order = await self._order(client, consumer)
        if order is None:
            return
        load.tally.orders += 1
        if choose.random() < 0.3:
            await client.follow(order, 12)
        _, _, view = await self._look(client, order, wait=10)
        if not isinstance(view, dict) or view.get("state") != "APPROVED":
            if isinstance(view, dict) and view.get("state") == "REJECTED":
                load.tally.settled += 1
            return
        load.tally.settled += 1
        await self._change(client, order)
        await self._look(client, order, wait=8)

    async def _order(self, client: Client, consumer: str) -> str | None:
        choose = self._random
        body = {
            "consumerId": consumer,
            "restaurantId": choose.choice(self._restaurants),
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds"),
            "deliveryAddress": _ADDRESS,
            "lineItems": self._lines(),
        }
        if choose.random() < self.workload.puts:
            order = str(uuid.uuid4())
            return order if await self._until_known(client, "PUT", f"/orders/{order}", body, None, order) else None
        key = f"key-{uuid.uuid4().hex}"
        answer = await self._until_known(client, "POST", "/orders", body, key, consumer)
        return answer["orderId"] if answer else None

    async def _until_known(
        self, client: Client, method: str, path: str, body: Any, key: str | None, about: str
    ) -> Any | None:
        """The answer, or None after a refusal or when this client gives up (one in ten does so at once)."""
        gives_up = self._random.random() < 0.1
        for _ in range(8):
            outcome, _, answer = await client.ask("create", "order", method, path, body, key=key, about=about)
            if outcome == "ok":
                if self._random.random() < self.workload.repeats:
                    # Twice at once: the same key must meet itself as well.
                    again = (client.ask("create", "order", method, path, body, key=key, about=about) for _ in range(2))
                    await asyncio.gather(*again)
                return answer
            if outcome == "fail":
                return None
            self.workload.tally.unknown += 1
            if gives_up:
                return None
            await asyncio.sleep(self._random.uniform(0.3, 2.0))
        return None

    def _lines(self) -> list[dict[str, Any]]:
        items = self._random.sample(range(1, _ITEMS + 1), self._random.randint(1, 3))
        return [{"menuItemId": str(item), "quantity": self._random.randint(1, 3)} for item in items]

    async def _look(self, client: Client, order: str, wait: int) -> tuple[str, int, Any]:
        headers = {"Prefer": f"wait={wait}"}
        return await client.ask("read", "order", "GET", f"/orders/{order}", headers=headers, about=order)

    async def _change(self, client: Client, order: str) -> None:
        choose, load = self._random, self.workload
        dice = choose.random()
        if dice < load.cancels:
            await client.ask("cancel", "order", "POST", f"/orders/{order}/cancel", about=order)
        elif dice < load.cancels + load.revises:
            lines = {"revisedOrderLineItems": self._lines()}
            await client.ask("revise", "order", "POST", f"/orders/{order}/revise", lines, about=order)
            if choose.random() < 0.3:  # meets the semantic lock
                await client.ask("cancel", "order", "POST", f"/orders/{order}/cancel", about=order)
        elif dice < load.cancels + load.revises + load.cooks:
            ready = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
            verbs = {"accept": {"readyBy": ready}, "preparing": None, "ready": None, "picked-up": None}
            for verb, body in verbs.items():
                outcome, _, _ = await client.ask(verb, "kitchen", "POST", f"/tickets/{order}/{verb}", body, about=order)
                if outcome != "ok":
                    break
                if choose.random() < 0.2:
                    await client.ask("cancel", "order", "POST", f"/orders/{order}/cancel", about=order)
                    break
