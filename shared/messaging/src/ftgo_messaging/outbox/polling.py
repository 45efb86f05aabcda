"""The polling publisher: select unpublished rows, publish them, delete what was acknowledged.

Rows are found by presence, never by a cursor: a transaction that took a lower position may commit later. Per relay
name there is one owner at a time, held by a lease in the database; a deposed owner can no longer delete rows, so
what it leaves unfinished the next one publishes again.
"""

import asyncio
import random
from collections.abc import Sequence

import msgspec
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.connection import Connection, connect
from ftgo_messaging.errors import is_transient
from ftgo_messaging.failpoints import failpoint
from ftgo_messaging.ids import new_id
from ftgo_messaging.message import Message
from ftgo_messaging.outbox.relay import Publisher, WakeUp
from ftgo_messaging.outbox.table import SHARDS

log = structlog.get_logger("ftgo.relay")

PUBLISHED = Counter("ftgo_outbox_published_total", "Messages that Kafka acknowledged")
FAILED = Counter("ftgo_outbox_publish_failures_total", "Messages whose publishing failed and is tried again")
BACKLOG = Gauge("ftgo_outbox_batch", "Rows found by the last poll; at the batch limit the outbox is behind")
_headers_of = msgspec.json.Decoder(dict[str, str])

# The database's clock decides, so that hosts need not agree on the time. Taking over raises the epoch.
_LEASE = text(
    "INSERT INTO relay_lease AS l (name, owner, epoch, expires_at) "
    "VALUES (:name, :owner, 1, now() + make_interval(secs => :ttl)) "
    "ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at, "
    "epoch = CASE WHEN l.owner = excluded.owner THEN l.epoch ELSE l.epoch + 1 END "
    "WHERE l.owner = excluded.owner OR l.expires_at < now() RETURNING epoch"
)
_RELEASE = text("UPDATE relay_lease SET expires_at = now() WHERE name = :name AND owner = :owner")
_SELECT = (
    "SELECT position, message_id, channel, key, CAST(headers AS text), body "
    "FROM outbox{where} ORDER BY position LIMIT :limit"
)
# The lease row is share-locked: a take-over waits for this delete, a delete after the take-over finds no epoch.
_DELETE = text(
    "WITH mine AS (SELECT 1 FROM relay_lease WHERE name = :name AND owner = :owner AND epoch = :epoch FOR SHARE)"
    ", gone AS (DELETE FROM outbox WHERE position = ANY(CAST(:positions AS bigint[])) AND EXISTS (SELECT 1 FROM mine) "
    "RETURNING 1) SELECT count(*) FROM gone"
)


class PollingPublisher:
    """One relay for the shards ``index, index + of, index + 2 * of, ...``; ``of`` relays share an outbox.

    Polls at once after a full batch or a wake-up, else after ``interval`` seconds. Order per key: rows are published
    by position, and after a failure nothing of that key is sent in the same round."""

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
    ) -> None:
        if not 0 <= index < of <= SHARDS:
            raise ValueError(f"relay {index} of {of}: the index counts from 0, and there are at most {SHARDS} relays")
        self.owner = new_id()
        self.name = f"{index}/{of}"
        self._engine = engine
        self._publisher = publisher
        self._wake_up = wake_up
        self._batch = batch
        self._interval = interval
        self._ttl = lease_seconds
        self._epoch: int | None = None
        self._lease_ends = 0.0
        self._stopping = False
        self._shards = [s for s in range(SHARDS) if s % of == index]
        where = " WHERE shard = ANY(CAST(:shards AS smallint[]))" if of > 1 else ""
        self._select = text(_SELECT.format(where=where))

    async def _hold_lease(self, connection: Connection) -> bool:
        loop = asyncio.get_running_loop()
        if self._epoch is not None and loop.time() < self._lease_ends:
            return True
        asked = loop.time()
        parameters = {"name": self.name, "owner": self.owner, "ttl": self._ttl}
        rows = await connection.execute(_LEASE, parameters)
        self._epoch = rows[0][0] if rows else None
        # Renew after a third of the lease, counted from before the question: a pause in between shortens it.
        self._lease_ends = asked + self._ttl / 3
        return self._epoch is not None

    async def run_once(self) -> int:
        """Publish one batch. Returns 0 as well when another relay holds the lease."""
        async with connect(self._engine) as connection:
            if not await self._hold_lease(connection):
                return 0
            parameters = {"limit": self._batch, "shards": self._shards}
            found = await connection.execute(self._select, parameters)
            BACKLOG.set(len(found))
            if not found:
                return 0
            messages = [Message(str(r[1]), r[2], r[3], _headers_of.decode(r[4]), r[5]) for r in found]
            failpoint("relay.selected")
            acknowledged = await self._publisher.publish(messages)
            failpoint("relay.published")
            done = [r[0] for r, ok in zip(found, acknowledged, strict=True) if ok]
            FAILED.inc(len(found) - len(done))
            return await self._delete(connection, done)

    async def _delete(self, connection: Connection, positions: Sequence[int]) -> int:
        rows = await connection.execute(
            _DELETE, {"name": self.name, "owner": self.owner, "epoch": self._epoch, "positions": list(positions)}
        )
        failpoint("relay.deleted")
        deleted = int(rows[0][0])
        if deleted < len(positions):
            # Another relay took over while this one was publishing. It publishes the rest again, with the same ids.
            self._epoch = None
        PUBLISHED.inc(deleted)
        return deleted

    async def run(self) -> None:
        """Publish until stopped or cancelled; then give the lease back, so that the next relay need not wait for it.

        ``stop`` lets the round end that is under way; cancelled in the middle of one, its messages go out once more."""
        failures = 0
        try:
            while not self._stopping:
                try:
                    published = await self.run_once()
                    failures = 0
                except Exception as error:
                    failures += 1
                    level = log.warning if is_transient(error) else log.error
                    level("relay.failed", error=f"{type(error).__name__}: {error}", attempt=failures)
                    await asyncio.sleep(min(0.1 * 2 ** min(failures, 6), 5.0) * random.uniform(0.5, 1.0))
                    continue
                if published < self._batch:
                    await self._wake_up.wait(self._interval)
        finally:
            await asyncio.shield(self.release())

    def stop(self) -> None:
        """End ``run`` after the round that is under way. Rows may be left: ``run_once`` publishes them."""
        self._stopping = True
        self._wake_up.ring()

    async def release(self) -> None:
        """Give the lease back, if it is held and the database answers. Otherwise it ends by itself."""
        self._epoch = None
        try:
            async with connect(self._engine) as connection:
                await connection.execute(_RELEASE, {"name": self.name, "owner": self.owner})
        except Exception as error:
            log.info("relay.lease_not_released", error=str(error))
