"""The publisher when its producer goes out of sequence, and what a relayed message costs in round trips."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.outbox.table import (
    OUTBOX_PUBLICATION,
    outbox_table,
    relay_lease_table,
    relay_position_table,
)
from ftgo_messaging.runtime.connection import begin
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transaction import rows as rows_
from ftgo_messaging.transports.kafka.binding import from_kafka
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.transports.port import Sent
from sqlalchemy import MetaData, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

METADATA = MetaData()
outbox_table(METADATA)
relay_lease_table(METADATA)
relay_position_table(METADATA)
PARTITIONS = 4


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = f"publisher.{new_id()}"
    await ensure_topics(kafka.bootstrap, [name], PARTITIONS)
    return name


@pytest.fixture
async def publisher(kafka: Kafka) -> AsyncIterator[KafkaPublisher]:
    publisher = KafkaPublisher(kafka.bootstrap, "publisher-test", request_timeout=1.0)
    yield publisher
    await publisher.close()


def messages(topic: str, *numbers: int) -> list[Message]:
    """Of eight keys in turn."""
    return [Message(new_id(), topic, f"k{n % 8}", {m.ID: new_id(), m.SEQUENCE: str(n)}, b"{}") for n in numbers]


async def on_topic(kafka: Kafka, topic: str) -> list[tuple[str, int]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found = []
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(r.key.decode(), int(dict(from_kafka(r.headers))[m.SEQUENCE])) for r in records]
        return found
    finally:
        await consumer.stop()


async def test_a_producer_that_is_out_of_sequence_is_replaced(
    publisher: KafkaPublisher, topic: str, kafka: Kafka
) -> None:
    """A batch that was given numbers and never sent leaves a hole; the broker refuses all that follows (C1)."""
    assert await publisher.publish(messages(topic, *range(8))) == [Sent.CONFIRMED] * 8
    first: Any = publisher._producer
    for partition in range(PARTITIONS):
        first._txn_manager.increment_sequence_number(TopicPartition(topic, partition), 5)
    again = messages(topic, *range(8, 16))
    assert await publisher.publish(again) == [Sent.UNKNOWN] * 8
    assert await publisher.publish(again) == [Sent.CONFIRMED] * 8
    assert publisher._producer is not first
    assert sorted(await on_topic(kafka, topic)) == sorted((f"k{n % 8}", n) for n in range(16))


async def test_large_messages_of_many_partitions_travel_in_requests_that_the_broker_accepts(
    publisher: KafkaPublisher, kafka: Kafka
) -> None:
    """One batch of each partition would be 3 MB at once, and the broker closes the connection for that."""
    topic = f"publisher.{new_id()}"
    await ensure_topics(kafka.bootstrap, [topic], 12)
    large = [Message(new_id(), topic, f"k{n}", {m.ID: new_id()}, b"x" * 240_000) for n in range(48)]
    large.append(Message(new_id(), topic, "k1", {m.ID: new_id()}, b"x" * 990_000))
    assert await publisher.publish(large) == [Sent.CONFIRMED] * 49


@pytest.mark.slow
async def test_a_broker_that_is_away_for_longer_than_the_request_timeout(
    publisher: KafkaPublisher, topic: str, kafka: Kafka
) -> None:
    """Killed while publishing, and away for three timeouts: the same rows are offered again until they are
    acknowledged, as a relay does."""
    assert await publisher.publish(messages(topic, *range(8))) == [Sent.CONFIRMED] * 8
    left = messages(topic, *range(8, 400))

    async def relay() -> None:
        nonlocal left
        while left:
            try:
                sent = await publisher.publish(left[:50])
            except Exception:
                await asyncio.sleep(0.2)
                continue
            blocked: set[str] = set()
            for message, how in zip(left, sent, strict=False):
                if how is not Sent.CONFIRMED:
                    blocked.add(message.key)
            left = [x for x in left[:50] if x.key in blocked] + left[50:]

    running = asyncio.create_task(relay())
    kafka.kill()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def long_enough() -> None:
        assert loop.time() - began > 3

    await eventually(long_enough)
    await kafka.start()
    async with asyncio.timeout(60):
        await running
    found = await on_topic(kafka, topic)
    for key in {key for key, _ in found}:
        numbers = list(dict.fromkeys(n for k, n in found if k == key))
        assert numbers == [n for n in range(400) if f"k{n % 8}" == key]


class Counted:
    """Counts statements of an engine and produce requests of a publisher."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.statements = 0
        self.requests = 0
        event.listen(engine.sync_engine, "connect", self._connected)

    def _connected(self, adapted: Any, _: Any) -> None:
        adapted.driver_connection.add_query_logger(self._asked)

    def _asked(self, _: Any) -> None:
        self.statements += 1

    def watch(self, publisher: KafkaPublisher) -> None:
        client: Any = publisher._producer.client  # type: ignore[union-attr]
        send = client.send

        async def counted(*arguments: Any, **named: Any) -> Any:
            self.requests += 1
            return await send(*arguments, **named)

        client.send = counted


@pytest.mark.parametrize("kind", ["polling", "log-tailing"])
async def test_a_relayed_message_costs_a_twentieth_of_a_round_trip(
    kind: str, postgres: Postgres, kafka: Kafka, topic: str
) -> None:
    """At a batch of 100: SELECT, produce, DELETE. The gate is a count, the same on every machine."""
    dsn = (await postgres.create_service_databases(["counted"]))["counted"]
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), pool_size=5)
    counted = Counted(engine)
    async with engine.begin() as connection:
        await connection.execute(text("DROP PUBLICATION IF EXISTS outbox_inserts"))
        await connection.run_sync(METADATA.drop_all)
        await connection.run_sync(METADATA.create_all)
        await connection.execute(text(OUTBOX_PUBLICATION))
    publisher = KafkaPublisher(kafka.bootstrap, "counted")
    relay: PollingPublisher | LogTailing
    if kind == "polling":
        relay = PollingPublisher(engine, publisher, WakeUp(), batch=100)
    else:
        relay = LogTailing(engine, publisher, WakeUp(), service="counted", batch=104)  # with begin and commit

    async def commit(numbers: range) -> None:
        async with begin(engine) as connection:
            await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of(messages(topic, *numbers)))])

    async def ready() -> None:
        await commit(range(1))
        await relay.run_once()
        assert not isinstance(relay, LogTailing) or not relay.sweeping
        while await relay.run_once():
            pass
        assert publisher._producer is not None

    await eventually(ready)
    for batch in range(20):
        await commit(range(batch * 100, batch * 100 + 100))
    counted.watch(publisher)
    counted.statements = 0
    moved = 0
    while moved < 2000:
        moved += await relay.run_once()
    assert (counted.statements + counted.requests) / moved <= 0.05, (counted.statements, counted.requests)
    assert counted.requests >= 20
    await relay.release()
    await publisher.close()

    async def dropped() -> None:
        async with engine.connect() as connection:
            slots = "FROM pg_replication_slots WHERE database = current_database()"
            await connection.execute(text(f"SELECT pg_terminate_backend(active_pid) {slots} AND active"))
            await connection.execute(text(f"SELECT pg_drop_replication_slot(slot_name) {slots} AND NOT active"))
            assert (await connection.execute(text(f"SELECT slot_name {slots}"))).all() == []

    await eventually(dropped)
    await engine.dispose()
