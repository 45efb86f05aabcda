"""Wakes whoever waits for an order, and reads for all of them together.

A transaction of this process wakes them at once. Another process may have made the change: while anybody waits, one
statement a second looks at all the orders that are waited for. How many wait for an order makes no difference to the
database.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog
from ftgo_messaging import UnitOfWork
from ftgo_messaging.runtime.errors import Overloaded
from ftgo_service_kit.shared_reads import SharedReads
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_order.adapters import queries
from ftgo_order.adapters.queries import OrderChange
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.domain.order import Order

log = structlog.get_logger("ftgo.order")

WAITING = Gauge("ftgo_order_waiting", "Clients that wait for an order: GETs and event streams")

LOOK_AGAIN = 1.0
"""Seconds between two looks for changes that other processes have made."""


class Watch:
    """One waiter's view of one order. Begin it before reading: a change between reading and waiting is not missed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Return when the order may have changed, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


class OrderChanges:
    """Who waits for which order in this process: at most ``limit`` clients. ``stopping`` ends their waiting."""

    def __init__(self, engine: AsyncEngine, limit: int, stopping: Callable[[], bool]) -> None:
        self.orders: SharedReads[str, Order] = SharedReads(lambda ids: queries.find_all(ORDERS, ids, engine))
        self.history: SharedReads[tuple[str, int], list[OrderChange]] = SharedReads(
            lambda asked: queries.changes_since(asked, engine)
        )
        self._engine = engine
        self.limit = limit
        self._stopping = stopping
        self._watches: dict[str, set[Watch]] = defaultdict(set)
        self._seen: dict[str, int] = {}
        self.waiting = 0
        self._looking: asyncio.Task[None] | None = None
        WAITING.set_function(lambda: self.waiting)

    def committed(self, uow: UnitOfWork) -> None:
        """Wake those who wait for the orders of this transaction. A callback for ``Transactions.after_commit``."""
        self.notify(uow.changed(ORDERS))

    def notify(self, order_ids: Iterable[str]) -> None:
        for order_id in order_ids:
            for watch in self._watches.get(order_id, ()):
                watch.notify()

    @contextmanager
    def watch(self, order_id: str) -> Iterator[Watch]:
        """Raises Overloaded when too many wait already."""
        if self.waiting >= self.limit:
            raise Overloaded(f"{self.limit} clients wait for orders already")
        watch = Watch()
        self._watches[order_id].add(watch)
        self.waiting += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="order changes")
        try:
            yield watch
        finally:
            self.waiting -= 1
            self._watches[order_id].discard(watch)
            if not self._watches[order_id]:
                del self._watches[order_id]
                self._seen.pop(order_id, None)

    async def _look(self) -> None:
        """Until nobody waits."""
        try:
            while self._watches:
                await asyncio.sleep(LOOK_AGAIN)
                if self._stopping():
                    self.notify(self._watches)
                    continue
                try:
                    versions = await queries.versions(list(self._watches), self._engine)
                except Exception as error:
                    log.warning("order_changes.not_read", error=repr(error))
                    continue
                self.notify(i for i, version in versions.items() if version != self._seen.get(i))
                self._seen = {i: version for i, version in versions.items() if i in self._watches}
        finally:
            self._looking = None

    def __len__(self) -> int:
        """How many orders are waited for."""
        return len(self._watches)
