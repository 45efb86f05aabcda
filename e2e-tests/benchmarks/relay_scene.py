"""What the relay's benchmark stands on: an outbox, topics, rows as of orders, a publisher that tells the time."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from ftgo_local.platform import Platform
from ftgo_messaging.consumer.tables import processed_messages_table
from ftgo_messaging.messages.message import ID, Message
from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.testing.outbox import outbox_database
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.transports.port import Sent
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

TOPICS = ("bench.commands", "bench.replies", "bench.events")
KINDS = ("polling", "log-tailing")
AnyRelay = PollingPublisher | LogTailing

_HISTORY = processed_messages_table(MetaData())

# As an order writes them: seven messages of a key, a dozen headers, three topics.
_ROWS = """
INSERT INTO outbox (message_id, channel, key, shard, headers, body)
SELECT id, (ARRAY['bench.commands', 'bench.replies', 'bench.events'])[1 + i % 3], key, hashtext(key) & 63,
  json_build_object('id', id, 'specversion', '1.0', 'type', 'ftgo.kitchen.CreateTicket',
    'dataschema', 'ftgo.kitchen.CreateTicket/1', 'messagekind', 'command', 'datacontenttype', 'application/json',
    'source', 'order', 'subject', key, 'time', '2026-01-01T00:00:00.000+00:00', 'correlationid', id,
    'causationid', id, 'replychannel', 'bench.replies', 'sagatype', 'create-order', 'sagaid', key),
  convert_to(repeat('{"lineItem": "x", "quantity": 3}', 10), 'UTF8')
FROM (SELECT i, gen_random_uuid() AS id, 'order-' || lpad((i / 7)::text, 30, '0') AS key
      FROM generate_series($1::int, $2::int) i) r
"""


@dataclass
class Scene:
    """A database and a broker that are there, and empty."""

    platform: Platform
    dsn: str
    engine: AsyncEngine

    async def sql(self, statement: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(statement, *arguments, timeout=900)
        finally:
            await connection.close()

    async def fill(self, count: int, per_transaction: int = 500) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            for first in range(0, count, per_transaction):
                await connection.execute(_ROWS, first, first + per_transaction - 1)
        finally:
            await connection.close()

    async def messages(self) -> list[Message]:
        """Everything in the outbox, as the bare producer gets it."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT CAST(message_id AS text), channel, key, headers, body FROM outbox ORDER BY position")
            )
            return [Message(r[0], r[1], r[2], r[3], r[4]) for r in rows]

    def publisher(self) -> KafkaPublisher:
        return KafkaPublisher(self.platform.kafka.bootstrap, "relay-bench")


@asynccontextmanager
async def scene_on(platform: Platform) -> AsyncIterator[Scene]:
    dsn = (await platform.create_databases(["relay_bench"]))["relay_bench"]
    async with outbox_database(dsn, pool_size=8) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(_HISTORY.create)
            await connection.execute(text("CREATE TABLE orders (id bigint PRIMARY KEY, state text NOT NULL)"))
        await ensure_topics(platform.kafka.bootstrap, TOPICS)
        yield Scene(platform, dsn, engine)


def make(kind: str, engine: AsyncEngine, publisher: Any, wake_up: WakeUp, **options: Any) -> AnyRelay:
    if kind == "polling":
        return PollingPublisher(engine, publisher, wake_up, **options)
    return LogTailing(engine, publisher, wake_up, service="relay_bench", **options)


async def ready(relay: AnyRelay) -> AnyRelay:
    """Owner of its lease, warm; a tailing one reads from the log by now."""
    async with asyncio.timeout(30):
        while await relay.run_once() or (isinstance(relay, LogTailing) and relay.sweeping):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return relay


@dataclass
class Clock:
    """A publisher that notes when each message was acknowledged."""

    publisher: KafkaPublisher
    acknowledged: dict[str, float] = field(default_factory=dict)

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        done = await self.publisher.publish(messages)
        now = time.perf_counter()
        for message in messages:
            self.acknowledged.setdefault(message.headers[ID], now)
        return done
