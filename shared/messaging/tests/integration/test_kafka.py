"""Relay and consumer against a real Kafka and a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.kafka import KafkaTransport
from ftgo_messaging.transports.kafka.binding import to_kafka
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.topics import WrongPartitions, ensure_topics
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, Identity, Integer, MetaData, Table, Text, text

METADATA = MetaData()
messaging_tables(METADATA)
seen = Table(
    "seen",
    METADATA,
    Column("position", Integer, Identity(), primary_key=True),
    Column("subject", Text, nullable=False),
    Column("n", Integer, nullable=False),
)
TICKS = Channel("tick.events", Kind.EVENT)


@TICKS.carries("test.Tick")
class Tick(DomainEvent, frozen=True, kw_only=True):
    n: int


@pytest.fixture
async def bootstrap(kafka: Kafka) -> str:
    await ensure_topics(kafka.bootstrap, [TICKS.name], partitions=4)
    return kafka.bootstrap


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["kafka_test"]))["kafka_test"]
    async with new_tables(dsn, METADATA, pool_size=10) as engine:
        yield Transactions(engine, "test")


Hook = Callable[[Tick], None]


def consumer(transactions: Transactions, bootstrap: str, group: str, hook: Hook = lambda _: None) -> ChannelConsumer:
    handlers = MessageHandlers("ticks")

    @handlers.handle(Tick, with_message=True)
    async def on_tick(event: Tick, uow: UnitOfWork, message: Message) -> None:
        hook(event)
        uow.append(seen, {"subject": message.key, "n": event.n})

    return ChannelConsumer(group, [TICKS], handlers, transactions, KafkaTransport(bootstrap))


async def rows(transactions: Transactions, sql: str) -> list[Any]:
    async with transactions.engine.connect() as connection:
        return [tuple(r) for r in await connection.execute(text(sql))]


async def publish(transactions: Transactions, bootstrap: str, keys: list[str], count: int) -> None:
    """``count`` events of each key through outbox, relay and Kafka."""

    async def events(uow: UnitOfWork) -> None:
        for n in range(count):
            for key in keys:
                uow.publish(Tick(n=n), subject=key, version=n + 1)

    await transactions.run_operation(Operation(events))
    publisher = KafkaPublisher(bootstrap, "test")
    relay = PollingPublisher(transactions.engine, publisher, WakeUp())
    while await relay.run_once():
        continue
    await relay.release()
    await publisher.close()


def in_order(found: list[Any], keys: list[str], count: int) -> None:
    for key in keys:
        assert [n for subject, n in found if subject == key] == list(range(count)), key


async def all_seen(transactions: Transactions, keys: list[str], count: int) -> None:
    async def check() -> None:
        found = await rows(transactions, "SELECT subject, n FROM seen ORDER BY position")
        assert len([1 for s, _ in found if s in keys]) >= len(keys) * count
        in_order(found, keys, count)

    await eventually(check, within=30)


async def test_what_was_committed_arrives_once_and_in_order(transactions: Transactions, bootstrap: str) -> None:
    keys = [new_id() for _ in range(8)]
    await publish(transactions, bootstrap, keys, 25)
    reader = consumer(transactions, bootstrap, f"g-{new_id()}")
    await reader.start()
    await all_seen(transactions, keys, 25)
    assert await rows(transactions, "SELECT count(*) FROM outbox") == [(0,)]
    await reader.stop()
    again = consumer(transactions, bootstrap, f"renamed-{new_id()}")  # a new group reads everything once more
    await again.start()
    await eventually(lambda: drained(bootstrap, again.name), within=30)
    await again.stop()
    assert await rows(transactions, f"SELECT count(*) FROM seen WHERE subject = '{keys[0]}'") == [(25,)]


async def drained(bootstrap: str, group: str) -> None:
    """All offsets of the group are committed to the end."""
    probe = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await probe.start()
    try:
        partitions = [TopicPartition(TICKS.name, p) for p in range(4)]
        ends = await probe.end_offsets(partitions)
        for partition, end in ends.items():
            assert (await probe.committed(partition) or 0) == end
    finally:
        await probe.stop()


async def test_a_transient_error_repeats_every_partition_of_the_batch(
    transactions: Transactions, bootstrap: str
) -> None:
    keys = [new_id() for _ in range(8)]
    await publish(transactions, bootstrap, keys, 10)
    failures = [3]

    def fail(event: Tick) -> None:
        if failures[0] and event.n == 5:
            failures[0] -= 1
            raise TransientError("the database is away")

    reader = consumer(transactions, bootstrap, f"g-{new_id()}", fail)
    await reader.start()
    await all_seen(transactions, keys, 10)
    await eventually(lambda: drained(bootstrap, reader.name), within=30)
    await reader.stop()
    assert failures == [0]
    dead = {row[0] for row in await rows(transactions, "SELECT key FROM dead_letters")}
    assert not dead & {key.encode() for key in keys}


async def test_poison_of_every_sort_is_kept_and_the_subscriber_lives_on(
    transactions: Transactions, bootstrap: str
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    group = f"g-{new_id()}"
    first = consumer(transactions, bootstrap, group)  # passes by what other tests left
    await first.start()
    await eventually(lambda: drained(bootstrap, group), within=30)
    await first.stop()
    before = (await rows(transactions, "SELECT count(*) FROM dead_letters"))[0][0]
    headers = to_kafka({m.ID: new_id(), m.TYPE: "test.Tick", m.SOURCE: "test", m.SEQUENCE: "1"})
    for value, given in [
        (b"not json", headers),
        (b'{"n": 1}', to_kafka({m.ID: new_id(), m.TYPE: "test.Nobody"})),
        (b'{"n": 1}', [("ce_id", b"\xff\xfe")]),
        (b'{"n": 1}', []),
        (None, to_kafka({m.ID: new_id(), m.TYPE: "test.Tick"})),
    ]:
        await producer.send_and_wait(TICKS.name, value, key=b"poison", headers=given)
    await producer.stop()
    key = new_id()
    await publish(transactions, bootstrap, [key], 3)
    reader = consumer(transactions, bootstrap, group)
    await reader.start()
    await all_seen(transactions, [key], 3)
    await eventually(lambda: drained(bootstrap, group), within=30)
    await reader.stop()
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [(before + 5,)]


async def test_two_members_share_the_work_and_a_leaving_one_loses_nothing(
    transactions: Transactions, bootstrap: str
) -> None:
    keys = [new_id() for _ in range(16)]
    group = f"g-{new_id()}"
    one, two = consumer(transactions, bootstrap, group), consumer(transactions, bootstrap, group)
    await one.start()
    await two.start()
    for part in range(4):
        subjects = keys[part * 4 : part * 4 + 4]
        await publish(transactions, bootstrap, subjects, 20)
        if part == 1:
            await one.stop()  # rebalance in the middle
        await all_seen(transactions, subjects, 20)
    await two.stop()
    await all_seen(transactions, keys, 20)  # each exactly once, in order


async def test_a_killed_kafka_delays_and_loses_nothing(
    transactions: Transactions, bootstrap: str, kafka: Kafka
) -> None:
    key = new_id()
    wake_up = WakeUp()
    publisher = KafkaPublisher(bootstrap, "test")
    relay = asyncio.create_task(PollingPublisher(transactions.engine, publisher, wake_up, interval=0.2).run())
    reader = consumer(transactions, bootstrap, f"g-{new_id()}")
    await reader.start()

    async def tick(n: int) -> None:
        async def event(uow: UnitOfWork) -> None:
            uow.publish(Tick(n=n), subject=key, version=n + 1)

        await transactions.run_operation(Operation(event))

    await tick(0)
    await all_seen(transactions, [key], 1)
    kafka.kill()
    await tick(1)
    await tick(2)
    await kafka.start()
    await all_seen(transactions, [key], 3)
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
    await publisher.close()
    await reader.stop()


def clients() -> int:
    """Clients of Kafka that keep their connections: each has a task that refreshes what it knows of the cluster."""
    coroutines = [str(task.get_coro()) for task in asyncio.all_tasks() if not task.done()]
    return sum("AIOKafkaClient._md_synchronizer" in coroutine for coroutine in coroutines)


@pytest.mark.parametrize("connected", [True, False])
async def test_a_stop_that_is_cut_off_leaves_no_connection_behind(
    transactions: Transactions, bootstrap: str, connected: bool
) -> None:
    before = clients()
    reader = consumer(transactions, bootstrap, f"g-{new_id()}")
    await reader.start()

    async def begun() -> None:
        assert clients() > before
        assert reader.running or not connected

    await eventually(begun, within=30, every=0.001)
    for _ in range(2):
        stopping = asyncio.create_task(reader.stop())
        await asyncio.wait([stopping], timeout=0.001)
        stopping.cancel()
        await asyncio.wait([stopping])
    await reader.stop()
    assert clients() == before


async def test_a_topic_with_another_number_of_partitions_is_refused(bootstrap: str) -> None:
    with pytest.raises(WrongPartitions, match="has 4 partitions, declared are 12"):
        await ensure_topics(bootstrap, [TICKS.name])
