"""The polling publisher: select unpublished rows, publish them, delete what was acknowledged.

Rows are found by presence, never by a cursor: a transaction that took a lower position may commit later. Each shard
has one owner at a time, by a lease in the database; a deposed owner can no longer delete rows, so what it leaves
unfinished the next one publishes again.
"""

import asyncio

import msgspec
import structlog
from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.messages.message import Message, renamed
from ftgo_messaging.outbox.delivery import NOTHING, Delivery, LeaseLost, Round, Row
from ftgo_messaging.outbox.lease import Lease
from ftgo_messaging.outbox.moving import Moving
from ftgo_messaging.outbox.relay import RelayStatus, WakeUp
from ftgo_messaging.outbox.table import SHARDS, shards_of
from ftgo_messaging.runtime.connection import Connection, connect
from ftgo_messaging.runtime.loops import repeat
from ftgo_messaging.transports.port import Publisher

log = structlog.get_logger("ftgo.relay")

BACKLOG = Gauge("ftgo_outbox_batch", "Rows found by the last poll; at the batch limit the outbox is behind")
SHORTEST_INTERVAL = 0.05
"""Seconds until the next poll after one that found something. Each empty poll doubles it, up to the interval."""

REST = 0.02
"""Seconds, at most, that a relay lets rows gather after a round, in proportion to what it has just moved. Under load
that makes rounds larger and fewer, and leaves the machine to the writers; a lone message never waits for it."""

_headers_of = msgspec.json.Decoder(dict[str, str])
_SELECT = (
    "SELECT position, shard, CAST(message_id AS text), channel, key, CAST(headers AS text), body FROM outbox "
    "{where}ORDER BY position LIMIT :limit"
)
_MY_SHARDS = "shard = ANY(CAST(:shards AS smallint[]))"
_NOT_STOPPED = (
    "channel <> ALL(CAST(:channels AS text[])) AND NOT EXISTS (SELECT 1 FROM "
    "unnest(CAST(:key_channels AS text[]), CAST(:keys AS text[])) AS s (c, k) WHERE s.c = channel AND s.k = key)"
)
_ALL = text(_SELECT.format(where=""))
_SHARDS = text(_SELECT.format(where=f"WHERE {_MY_SHARDS} "))
_FLOWING = text(_SELECT.format(where=f"WHERE {_MY_SHARDS} AND {_NOT_STOPPED} "))


def rest_after(moved: int) -> float:
    """Seconds: nothing after one message, a little after two, all of the rest after a hundred."""
    return REST * min(max(moved - 1, 0), 99) / 99


class PollingPublisher:
    """One relay for the shards ``index, index + of, index + 2 * of, ...``; ``of`` relays share an outbox.

    Polls at once after a full batch or a wake-up, else after a time that grows up to ``interval`` seconds. Order per
    key: rows are published by position, and a key that failed is left out until its next attempt."""

    def __init__(
        self,
        engine: AsyncEngine,
        publisher: Publisher,
        wake_up: WakeUp,
        *,
        batch: int = 500,
        interval: float = 1.0,
        lease_seconds: float = 10.0,
        index: int = 0,
        of: int = 1,
        moving: Moving | None = None,
    ) -> None:
        self.lease = Lease(shards_of(index, of), lease_seconds)
        self.delivery = Delivery(publisher, self.lease, moving)
        if moving is not None:
            moving.serve(self.lease, self.delivery.stopped, wake_up)
        self._engine = engine
        self._wake_up = wake_up
        self._batch = batch
        self._interval = interval
        self._pause = SHORTEST_INTERVAL
        self._stopping = False

    @property
    def status(self) -> RelayStatus:
        return self.delivery.status

    async def run_once(self) -> int:
        """Publish one batch; returns how many messages were acknowledged and removed: 0 as well when other relays
        hold all leases, or when only stopped keys are left and their time has not come."""
        return len((await self.publish_batch()).done)

    async def publish_batch(self) -> Round:
        """Publish one batch."""
        async with connect(self._engine) as connection:
            owner = await self.lease.hold(connection)
            self.status.holds(len(self.lease.held))
            if not owner:
                self.status.found = 0
                return NOTHING
            rows = await self._find(connection)
            BACKLOG.set(len(rows))
            self.status.found = len(rows)
            if not rows:
                self.status.oldest_age = 0.0
                return NOTHING
            try:
                return await self.delivery.deliver(connection, rows)
            except LeaseLost as error:
                log.warning("relay.lease_lost", error=str(error))
                return Round(len(rows))

    async def _find(self, connection: Connection) -> list[Row]:
        statement = _ALL if len(self.lease.held) == SHARDS else _SHARDS
        parameters: dict[str, object] = {"limit": self._batch, "shards": list(self.lease.held)}
        if self.delivery.stopped:
            keys, channels = self.delivery.stopped.waiting()
            statement = _FLOWING
            parameters |= {"channels": channels, "key_channels": [c for c, _ in keys], "keys": [k for _, k in keys]}
        return [
            Row(r[0], r[1], Message(r[2], r[3], r[4], renamed(_headers_of.decode(r[5])), r[6]))
            for r in await connection.execute(statement, parameters)
        ]

    async def run(self) -> None:
        """Publish until stopped or cancelled; then give the lease back, so that the next relay need not wait for it.

        ``stop`` lets the round end that is under way; cancelled in the middle of one, its messages go out once more."""

        async def work() -> None:
            result = await self.publish_batch()
            self.status.round_done()
            await self._wait(result.found)

        try:
            await repeat("relay", work, stopped=lambda: self._stopping)
        finally:
            await asyncio.shield(self.release())

    async def _wait(self, found: int) -> None:
        """Until the next poll: not at all after a full batch, else until a wake-up or for a growing time."""
        if found == self._batch:
            return
        self._pause = min(self._pause * 2, self._interval) if found == 0 else SHORTEST_INTERVAL
        pause = self._pause
        if (retry := self.delivery.stopped.next_attempt()) is not None:
            pause = min(pause, max(retry, SHORTEST_INTERVAL))
        await asyncio.sleep(rest_after(found))
        await self._wake_up.wait(pause)

    def stop(self) -> None:
        """End ``run`` after the round that is under way. Rows may be left: ``run_once`` publishes them."""
        self._stopping = True
        self._wake_up.ring()

    async def release(self) -> None:
        """Give the lease back, if it is held and the database answers. Otherwise it ends by itself."""
        try:
            async with connect(self._engine) as connection:
                await self.lease.release(connection)
        except Exception as error:
            log.info("relay.lease_not_released", error=str(error))
