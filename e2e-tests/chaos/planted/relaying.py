"""Bugs of the relay."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox.delivery import Delivery, Round, Row
from ftgo_messaging.outbox.log_stream import LogStream
from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.polling import PollingPublisher, _headers_of
from ftgo_messaging.outbox.stopped import Stopped
from ftgo_messaging.runtime.connection import Connection, connect
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.port import Sent
from sqlalchemy import text


def cursor_by_id() -> None:
    """Remember the last position seen, and look only behind it: whoever took a lower one and commits later is lost."""
    find = PollingPublisher._find

    async def behind_the_cursor(self: Any, connection: Connection) -> list[Row]:
        last = getattr(self, "_last_seen", 0)
        rows = [row for row in await find(self, connection) if row.position > last]
        self._last_seen = max([last, *(row.position for row in rows)])
        return rows

    PollingPublisher._find = behind_the_cursor  # type: ignore[method-assign]


def delete_before_publish() -> None:
    """Mark as published, then publish: what dies in between is lost."""

    async def deliver(self: Any, connection: Connection, rows: Sequence[Row]) -> Round:
        deleted = await self.delete(connection, rows)
        await self._publish(connection, [row.message for row in rows])
        return Round(len(rows), rows, deleted)

    Delivery.deliver = deliver  # type: ignore[method-assign]


def skip_locked() -> None:
    """No lease; two relays share the outbox by SKIP LOCKED: each takes what the other has left, whatever its key."""
    select = text(
        "SELECT position, CAST(message_id AS text), channel, key, CAST(headers AS text), body FROM outbox "
        "ORDER BY position LIMIT 2 FOR UPDATE SKIP LOCKED"
    )
    delete = text("DELETE FROM outbox WHERE position = ANY(CAST(:positions AS bigint[]))")
    run = PollingPublisher.run

    async def publish_batch(self: Any) -> Round:
        async with connect(self._engine) as connection, connection.driver.transaction():
            found = await connection.execute(select)
            rows = [Row(r[0], 0, Message(r[1], r[2], r[3], _headers_of.decode(r[4]), r[5])) for r in found]
            if rows:
                await asyncio.sleep(random.uniform(0, 0.05))
                await self.delivery._publisher.publish([row.message for row in rows])
                await connection.execute(delete, {"positions": [row.position for row in rows]})
            return Round(self._batch if len(rows) == 2 else len(rows), rows, len(rows))

    async def two_of_them(self: Any) -> None:
        await asyncio.gather(run(self), run(self))

    PollingPublisher.publish_batch = publish_batch  # type: ignore[method-assign]
    PollingPublisher.run = two_of_them  # type: ignore[method-assign]


def skip_failed_row() -> None:
    """A row that failed is tried again after a second, and the next of its key goes out meanwhile. The broker refuses
    one message in twenty, once."""
    publish, deliver, find = KafkaPublisher.publish, Delivery.deliver, PollingPublisher._find
    postponed: dict[int, float] = {}

    async def refusing(self: Any, messages: Sequence[Message]) -> list[Sent]:
        taken = [random.random() > 0.05 for _ in messages]
        sent = await publish(self, [m for m, ok in zip(messages, taken, strict=True) if ok])
        results = iter(sent)
        return [next(results) if ok else Sent.REFUSED for ok in taken]

    async def remembering(self: Any, connection: Connection, rows: Sequence[Row]) -> Round:
        result = await deliver(self, connection, rows)
        for position in {row.position for row in rows} - {row.position for row in result.done}:
            postponed[position] = time.monotonic() + 1.0
        return result

    async def without_postponed(self: Any, connection: Connection) -> list[Row]:
        return [row for row in await find(self, connection) if postponed.get(row.position, 0) < time.monotonic()]

    KafkaPublisher.publish = refusing  # type: ignore[method-assign]
    Delivery.deliver = remembering  # type: ignore[method-assign]
    PollingPublisher._find = without_postponed  # type: ignore[method-assign]
    Stopped.note = lambda self, failed, passed: None  # type: ignore[method-assign]


def flush_last_received() -> None:
    """Confirm what was received instead of what was published, and trust the stream alone: what was received and not
    published when the process died is never seen again."""
    read = LogStream.read

    async def confirming(self: Any, most: int, timeout: float) -> list[Any]:
        events = await read(self, most, timeout)
        self.confirm(self.server_lsn)
        return events

    def take_shards(self: Any) -> None:
        self._shards = set(self.lease.held)
        self.sweeping = False

    async def no_sweep(self: Any, patience: float) -> Round:
        await asyncio.sleep(0.05)
        return Round()

    async def no_look(self: Any, connection: Connection) -> None:
        return None

    LogStream.read = confirming  # type: ignore[method-assign]
    LogTailing._take_shards = take_shards  # type: ignore[method-assign]
    LogTailing._sweep = no_sweep  # type: ignore[method-assign]
    LogTailing._look = no_look  # type: ignore[method-assign]
