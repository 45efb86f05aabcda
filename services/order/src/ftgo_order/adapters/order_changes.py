"""Wakes whoever waits for an order, as soon as a transaction of this process has changed it.

It is a hint, not the truth: another process may have made the change. Who waits therefore looks into the database
again after a second at the latest.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ftgo_messaging.unit_of_work import UnitOfWork

from ftgo_order.adapters.tables import ORDERS

_LOOK_AGAIN = 1.0


class Watch:
    """One waiter's view of one order. Begin it before reading: a change between reading and waiting is not missed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def wait(self, seconds: float = _LOOK_AGAIN) -> None:
        """Return when the order may have changed, or after ``seconds``, or after one second."""
        try:
            async with asyncio.timeout(min(seconds, _LOOK_AGAIN)):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


class OrderChanges:
    """Who waits for which order in this process."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = defaultdict(set)

    def committed(self, uow: UnitOfWork) -> None:
        """Wake those who wait for the orders of this transaction. A callback for ``Transactions.after_commit``."""
        self.notify(uow.changed(ORDERS))

    def notify(self, order_ids: Iterable[str]) -> None:
        for order_id in order_ids:
            for watch in self._watches.get(order_id, ()):
                watch.notify()

    @contextmanager
    def watch(self, order_id: str) -> Iterator[Watch]:
        watch = Watch()
        self._watches[order_id].add(watch)
        try:
            yield watch
        finally:
            self._watches[order_id].discard(watch)
            if not self._watches[order_id]:
                del self._watches[order_id]

    def __len__(self) -> int:
        """How many orders are waited for."""
        return len(self._watches)
