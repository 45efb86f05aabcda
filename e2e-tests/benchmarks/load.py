"""Places orders over HTTP and watches when each one is settled.

Times are those of the generator. A latency counts from the moment at which the order was *meant* to be sent, so that a
system that keeps the generator waiting cannot hide it.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType

import httpx
import msgspec
from connection import Connection
from deployment import Deployment
from settlements import Settlements, Source, of_events

CONSUMERS = 200
CONNECTIONS = 64
DRAIN_SECONDS = 60.0
READY_SECONDS = 60.0


class _Created(msgspec.Struct, rename="camel"):
    order_id: str


_created = msgspec.json.Decoder(_Created)


@dataclass
class Run:
    """What became of the orders of one phase. ``posts`` and ``settlements`` are latencies in seconds."""

    accepted: int = 0
    refused: int = 0
    approved: int = 0
    rejected: int = 0
    began: float = 0.0
    load_ended: float = 0.0
    ended: float = 0.0
    drained: bool = False
    posts: list[float] = field(default_factory=list)
    settlements: list[float] = field(default_factory=list)

    @property
    def settled(self) -> int:
        return self.approved + self.rejected

    @property
    def settled_per_second(self) -> float:
        """Over the whole time, the drain included: a backlog cannot improve it."""
        return self.settled / (self.ended - self.began)

    @property
    def accepted_per_second(self) -> float:
        return self.accepted / (self.load_ended - self.began)


class Load:
    """``async with Load(system) as load``: consumers with high limits and a restaurant exist, Order knows them."""

    def __init__(self, system: Deployment, settlements: Source = of_events) -> None:
        self._system = system
        self._settlements = settlements
        self._ends = AsyncExitStack()
        self._run = Run()
        self._waiting: dict[str, tuple[float, asyncio.Future[None]]] = {}
        self._early: dict[str, tuple[float, bool]] = {}
        self._bodies: list[bytes] = []
        self._next = count()
        self._free: asyncio.Queue[Connection] = asyncio.Queue()

    async def __aenter__(self) -> "Load":
        await self._register()
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await Connection.open(self._system.ports["order"]))
        settled = await self._ends.enter_async_context(self._settlements(self._system))
        self._watching = asyncio.create_task(self._watch(settled))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._ends.aclose()
        while not self._free.empty():
            self._free.get_nowait().close()

    # -- phases ----------------------------------------------------------------------------------------------------

    async def at_rate(self, rate: float, seconds: float) -> Run:
        """Open loop: ``rate`` orders/s for ``seconds``, sent on time whatever became of the ones before; then drain."""
        run = self._begin()
        sending: list[asyncio.Task[object]] = []
        for number in range(round(rate * seconds)):
            intended = run.began + number / rate
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))
            sending.append(asyncio.create_task(self._place(intended)))
        await asyncio.gather(*sending)
        return await self._drain(run)

    async def saturate(self, in_flight: int, seconds: float) -> Run:
        """Keep ``in_flight`` orders between POST and settled for ``seconds``; then drain."""
        run = self._begin()

        async def customer() -> None:
            while time.perf_counter() < run.began + seconds:
                settled = await self._place(time.perf_counter())
                if settled is not None:
                    await asyncio.wait([settled], timeout=DRAIN_SECONDS)

        await asyncio.gather(*(customer() for _ in range(in_flight)))
        run.load_ended = min(time.perf_counter(), run.began + seconds)
        return await self._drain(run)

    async def burst(self, orders: int) -> Run:
        """``orders`` orders as fast as the connections take them; then drain."""
        run = self._begin()
        await asyncio.gather(*(self._place(run.began) for _ in range(orders)))
        return await self._drain(run)

    # -- the parts -------------------------------------------------------------------------------------------------

    def _begin(self) -> Run:
        self._run = Run(began=time.perf_counter())
        return self._run

    async def _drain(self, run: Run) -> Run:
        run.load_ended = run.load_ended or time.perf_counter()
        waiting = [future for _, future in self._waiting.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=DRAIN_SECONDS)
        run.drained = not self._waiting
        run.ended = time.perf_counter()
        return run

    async def _place(self, intended: float) -> asyncio.Future[None] | None:
        """POST one order. Returns what becomes done when it is settled; None when it was refused."""
        run = self._run
        connection = await self._free.get()
        try:
            if connection.closed:
                connection = await Connection.open(self._system.ports["order"])
            body = self._bodies[next(self._next) % len(self._bodies)]
            status, answer = await connection.request("POST", "/orders", body)
        finally:
            self._free.put_nowait(connection)
        if status != httpx.codes.ACCEPTED:
            run.refused += 1
            return None
        run.accepted += 1
        run.posts.append(time.perf_counter() - intended)
        order_id = _created.decode(answer).order_id
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[order_id] = (intended, settled)
        if order_id in self._early:
            self._settle(order_id, *self._early.pop(order_id))
        return settled

    async def _watch(self, settled: Settlements) -> None:
        async for order_id, approved in settled:
            if order_id in self._waiting:
                self._settle(order_id, time.perf_counter(), approved)
            else:  # faster than the answer to its POST
                self._early[order_id] = (time.perf_counter(), approved)

    def _settle(self, order_id: str, when: float, approved: bool) -> None:
        intended, settled = self._waiting.pop(order_id)
        self._run.settlements.append(when - intended)
        self._run.approved += approved
        self._run.rejected += not approved
        if not settled.done():
            settled.set_result(None)

    async def _register(self) -> None:
        ports = self._system.ports
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:

            async def send(method: str, service: str, path: str, body: object) -> str:
                answer = await client.request(method, f"http://127.0.0.1:{ports[service]}{path}", json=body)
                answer.raise_for_status()
                return answer.text

            async def known(service: str, path: str) -> None:
                url = f"http://127.0.0.1:{ports[service]}{path}"
                async with asyncio.timeout(READY_SECONDS):
                    while (await client.get(url)).status_code != httpx.codes.OK:  # noqa: ASYNC110 - another process decides
                        await asyncio.sleep(0.05)

            async def consumer(number: int) -> str:
                person = {"firstName": "Load", "lastName": f"Number {number}"}
                answer = await send("POST", "consumer", "/consumers", {"name": person, "orderLimit": "1000000.00"})
                consumer_id: str = json.loads(answer)["consumerId"]
                await known("accounting", f"/accounts/{consumer_id}")
                limit = {"creditLimit": "999999999.00"}
                await send("PUT", "accounting", f"/accounts/{consumer_id}/credit-limit", limit)
                await known("order", f"/consumers/{consumer_id}")
                return consumer_id

            items = [{"id": str(n), "name": f"Dish {n}", "price": f"{n}.50"} for n in range(1, 11)]
            address = {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"}
            restaurant = {"name": "The Bench", "address": address, "menu": {"menuItems": items}}
            restaurant_id = json.loads(await send("POST", "kitchen", "/restaurants", restaurant))["id"]
            await known("order", f"/restaurants/{restaurant_id}")
            consumers: list[str] = []
            for first in range(0, CONSUMERS, 20):
                consumers += await asyncio.gather(*(consumer(n) for n in range(first, first + 20)))
        delivery = {
            "restaurantId": restaurant_id,
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds"),
            "deliveryAddress": address,
            "lineItems": [{"menuItemId": "1", "quantity": 2}, {"menuItemId": "4", "quantity": 1}],
        }
        self._bodies = [json.dumps({"consumerId": c, **delivery}).encode() for c in consumers]
