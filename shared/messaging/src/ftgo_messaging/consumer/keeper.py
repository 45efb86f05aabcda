"""Keeps the lanes of one member where the broker does not assign them: renews their leases while it reads, and tells
its subscription what to read."""

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.consumer.fence import Fence
from ftgo_messaging.consumer.lanes import LaneLeases
from ftgo_messaging.runtime.connection import Connection, connect
from ftgo_messaging.runtime.loops import repeat
from ftgo_messaging.transports.port import Batch, Subscription

log = structlog.get_logger("ftgo.consumer")


class LaneKeeper:
    """``changed`` is called when the lanes that are to be read are others than those that are read: ``apply`` does
    that, between batches. ``run`` renews until cancelled; ``leave`` comes after the subscription is closed."""

    def __init__(
        self, leases: LaneLeases, engine: AsyncEngine, subscription: Subscription, changed: Callable[[], None]
    ) -> None:
        self._leases = leases
        self._engine = engine
        self._subscription = subscription
        self._changed = changed
        self._read: dict[str, int] = {}
        self._one = asyncio.Lock()

    async def run(self) -> None:
        await repeat("consumer.lanes", self._renew)

    async def _renew(self) -> None:
        await asyncio.sleep(self._leases.renew_in)
        async with self._one, connect(self._engine) as connection:
            await self._leases.hold(connection)
        if self._wanted() != self._read or self._leases.surplus:
            self._changed()

    def _wanted(self) -> dict[str, int]:
        """The lanes to be read, and their epochs. None after a pause in which others may have taken them."""
        if not self._leases.sure:
            return {}
        return {lane: epoch for lane, epoch in self._leases.held.items() if lane not in self._leases.surplus}

    async def apply(self) -> None:
        """Between batches: read what is held, and give up what is another's share."""
        wanted = self._wanted()
        if wanted != self._read:
            # A lane that was another's in between is begun anew, not gone on with.
            kept = {lane: epoch for lane, epoch in self._read.items() if wanted.get(lane) == epoch}
            if kept != self._read:
                await self._subscription.assign(kept)
                self._read = kept
            if wanted != kept:
                await self._subscription.assign(wanted)
                self._read = wanted
            log.info("consumer.lanes", consumer=self._leases.consumer, lanes=len(wanted))
        if self._leases.surplus:
            async with self._one, connect(self._engine) as connection:
                await self._leases.give_up(connection, self._leases.surplus)

    def fence(self, batch: Batch) -> Fence:
        """For the transactions that handle this batch. Raises LaneLost."""
        epochs = self._leases.epochs({record.lane for record in batch.records})

        async def check(connection: Connection) -> None:
            await self._leases.check(connection, epochs)

        return check

    async def leave(self) -> None:
        """Others get the lanes at once. If the database does not answer, when the lease ends."""
        self._read = {}
        try:
            async with self._one, connect(self._engine) as connection:
                await self._leases.release(connection)
        except Exception as error:
            log.info("consumer.lanes_not_released", consumer=self._leases.consumer, error=str(error))
