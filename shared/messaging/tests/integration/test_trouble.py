"""A consumer in trouble, on a real Kafka and a real PostgreSQL: outages, rebalances, and getting stuck."""

import asyncio
import gc
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.progress import AGE, BACKLOG
from ftgo_messaging.consumer.runner import ChannelConsumer, ConsumerStuck
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.errors import is_transient
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.kafka import KafkaTransport
from ftgo_messaging.transports.kafka.binding import to_kafka
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, Identity, Integer, MetaData, Table, Text, text

pytestmark = pytest.mark.slow

PARTITIONS = 4
METADATA = MetaData()
messaging_tables(METADATA)
steps = Table(
    "steps",
    METADATA,
    Column("position", Integer, Identity(), primary_key=True),
    Column("key", Text, nullable=False),
    Column("n", Integer, nullable=False),
)


class Stepped(DomainEvent, frozen=True, kw_only=True):
    n: int


@pytest.fixture(autouse=True)
async def closed_behind() -> AsyncIterator[None]:
    """A client of Kafka that is closed or cut off while it connects leaves the new connection behind its own close."""
    yield
    for left in [o for o in gc.get_objects() if isinstance(o, AIOKafkaConnection | asyncio.StreamWriter)]:
        left.close()
    await asyncio.sleep(0.1)  # for the transports, which tell nobody when they are closed
    gc.collect()


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["trouble"]))["trouble"]
    async with new_tables(dsn, METADATA, pool_size=10) as engine:
        yield Transactions(engine, "trouble")


@pytest.fixture
async def channel(kafka: Kafka) -> Channel:
    """A topic of the test's own."""
    channel = Channel(f"trouble.{new_id()}", Kind.EVENT)
    channel.carries("trouble.Stepped")(Stepped)
    await ensure_topics(kafka.bootstrap, [channel.name], partitions=PARTITIONS)
    return channel


class Reader:
    """Starts consumers of one group; all do the same: note key and number."""

    def __init__(self, transactions: Transactions, channel: Channel, kafka: Kafka) -> None:
        self.group = f"g-{new_id()}"
        self.before: Callable[[Stepped], Awaitable[None]] | None = None
        self._arguments = ([channel], self._handlers(), transactions, KafkaTransport(kafka.bootstrap))

    def _handlers(self) -> MessageHandlers:
        handlers = MessageHandlers("trouble")

        @handlers.handle(Stepped, with_message=True)
        async def on_step(event: Stepped, uow: UnitOfWork, message: Message) -> None:
            if self.before is not None:
                await self.before(event)
            uow.append(steps, {"key": message.key, "n": event.n})

        return handlers

    def consumer(self, **options: Any) -> ChannelConsumer:
        return ChannelConsumer(self.group, *self._arguments, **options)

    @asynccontextmanager
    async def reading(self, **options: Any) -> AsyncIterator[tuple[ChannelConsumer, asyncio.Task[None]]]:
        consumer = self.consumer(**options)
        await consumer.start()
        watching = asyncio.create_task(consumer.watch(every=0.2))
        try:
            yield consumer, watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await consumer.stop()


@pytest.fixture
def reader(transactions: Transactions, channel: Channel, kafka: Kafka) -> Reader:
    return Reader(transactions, channel, kafka)


async def publish(kafka: Kafka, channel: Channel, keys: Iterable[str], numbers: Iterable[int]) -> None:
    keys = list(keys)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for n in numbers:
            events = [writer.event_message(Stepped(n=n), new_id(), "test", None, key, n + 1) for key in keys]
            sent = [
                await producer.send(channel.name, x.body, x.key.encode(), headers=to_kafka(x.headers)) for x in events
            ]
            await asyncio.gather(*sent)


async def rows(transactions: Transactions, sql: str) -> list[Any]:
    async with transactions.engine.connect() as connection:
        return [tuple(r) for r in await connection.execute(text(sql))]


async def noted(transactions: Transactions) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for key, n in await rows(transactions, "SELECT key, n FROM steps ORDER BY position"):
        found[key].append(n)
    return found


async def until_noted(
    transactions: Transactions, keys: Iterable[str], numbers: Iterable[int], within: float = 30
) -> None:
    """Every number of every key once, and in order."""
    expected = {key: list(numbers) for key in keys}

    async def check() -> None:
        assert await noted(transactions) == expected

    await eventually(check, within=within, every=0.1)


async def test_a_database_that_is_away_pauses_the_consumer_and_costs_nothing(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka, postgres: Postgres
) -> None:
    keys = [new_id() for _ in range(4)]
    async with reader.reading(patience=1) as (consumer, watching):
        await publish(kafka, channel, keys, range(5))
        await until_noted(transactions, keys, range(5))
        postgres.stop(immediate=True)
        try:
            await publish(kafka, channel, keys, range(5, 10))

            async def not_ready() -> None:
                assert not consumer.progress_ok

            await eventually(not_ready)
            # Longer than its patience: it neither begins anew nor gives up, for that would not help.
            attempts = consumer.attempts
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await asyncio.shield(watching)
            assert 1 <= consumer.attempts - attempts <= 20
            assert consumer.running
        finally:
            await postgres.start()
        await until_noted(transactions, keys, range(10))

        async def ready_again() -> None:
            assert consumer.progress_ok
            assert consumer.attempts == 0

        await eventually(ready_again)
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.timeout(300)
async def test_a_broker_that_is_away_for_long_is_waited_for(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    """Longer than the session and the patience: the subscription begins anew, the process does not end."""
    keys = [new_id() for _ in range(4)]
    async with reader.reading(patience=5) as (consumer, watching):
        await publish(kafka, channel, keys, range(5))
        await until_noted(transactions, keys, range(5))
        kafka.kill()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(14):
                    await asyncio.shield(watching)
            assert not consumer.progress_ok
        finally:
            await kafka.start(timeout=180)
        await publish(kafka, channel, keys, range(5, 10))
        await until_noted(transactions, keys, range(10), within=60)
        assert not watching.done()


async def test_a_topic_that_is_made_anew_is_read_from_its_beginning(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    """The offsets of the group point behind its end."""
    keys = [new_id() for _ in range(4)]
    async with reader.reading(patience=5):
        await publish(kafka, channel, keys, range(20))
        await until_noted(transactions, keys, range(20))
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.delete_topics([channel.name])

        async def gone() -> None:
            assert channel.name not in await admin.list_topics()

        await eventually(gone)
        await admin.close()
        await ensure_topics(kafka.bootstrap, [channel.name], partitions=PARTITIONS)
        await publish(kafka, channel, keys, range(20, 25))
        await until_noted(transactions, keys, range(25), within=90)


async def test_an_offset_out_of_range_starts_at_the_earliest_message(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    keys = [new_id() for _ in range(4)]
    await publish(kafka, channel, keys, range(3))
    async with reader.reading():
        await until_noted(transactions, keys, range(3))
    probe = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=reader.group, enable_auto_commit=False)
    await probe.start()
    partitions = [TopicPartition(channel.name, p) for p in range(PARTITIONS)]
    probe.assign(partitions)
    await probe.commit(dict.fromkeys(partitions, 10_000))
    await probe.stop()
    await publish(kafka, channel, keys, range(3, 6))
    async with reader.reading():
        await until_noted(transactions, keys, range(6))  # the first three come again, and change nothing


async def test_a_consumer_that_hangs_begins_anew_and_if_that_does_not_help_it_ends(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    entered = 0
    hangs = 1

    async def hang(event: Stepped) -> None:
        nonlocal entered
        entered += 1
        if entered <= hangs:
            await asyncio.get_running_loop().create_future()

    reader.before = hang
    async with reader.reading(patience=1) as (consumer, watching):
        await publish(kafka, channel, ["a"], [1])

        async def late() -> None:
            assert not consumer.progress_ok

        await eventually(late)
        await until_noted(transactions, ["a"], [1], within=60)  # by the second subscription
        assert entered == 2

        async def fine() -> None:
            assert consumer.progress_ok

        await eventually(fine)
        entered, hangs = 0, 1000
        await publish(kafka, channel, ["a"], [2])
        with pytest.raises(ConsumerStuck, match="beginning anew did not help"):
            await asyncio.wait_for(asyncio.shield(watching), 60)


_UNREADABLE = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class NoText(str):
    def encode(self, *_):
        return bytes([0xff, 0xfe])

async def main():
    async with AIOKafkaProducer(bootstrap_servers=sys.argv[1]) as producer:
        await producer.send_and_wait(sys.argv[2], b"{}", partition=0, headers=[(NoText("x"), b"x")])

asyncio.run(main())
"""


async def test_a_record_that_the_client_cannot_read_is_skipped_and_costs_no_other(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    """A header name that is not UTF-8: aiokafka raises, and has taken other records out of its buffer by then. It is
    kept for what it lacks otherwise."""
    keys = "abcdefgh"  # two of them in partition 0, behind each record that cannot be read
    await publish(kafka, channel, keys, range(5))
    for first in (5, 10):
        command = [sys.executable, "-c", _UNREADABLE, kafka.bootstrap, channel.name]
        # The compiled part of aiokafka refuses to write such a record.
        unreadable = await asyncio.create_subprocess_exec(*command, env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"})
        assert await unreadable.wait() == 0
        await publish(kafka, channel, keys, range(first, first + 5))
    async with reader.reading():
        await until_noted(transactions, keys, range(15), within=60)
        kept = await rows(transactions, "SELECT origin, error FROM dead_letters ORDER BY id")
        assert [origin.partition("@")[0] for origin, _ in kept] == [f"{channel.name}/0"] * 2
        assert "unknown message type ''" in kept[0][1]


async def test_the_lag_is_a_metric(transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka) -> None:
    """Also of what comes while a batch is handled, when nothing is fetched."""
    at_work, go_on = asyncio.Event(), asyncio.Event()

    async def wait(event: Stepped) -> None:
        if event.n == 5:
            at_work.set()
            await go_on.wait()

    reader.before = wait
    async with reader.reading(max_records=1) as (consumer, _):
        await publish(kafka, channel, ["a"], range(6))
        await at_work.wait()
        await publish(kafka, channel, ["a"], range(6, 10))

        def lag() -> float:
            found = [s for metric in BACKLOG.collect() for s in metric.samples if s.labels["channel"] == channel.name]
            return sum(s.value for s in found if s.labels["consumer"] == consumer.name)

        async def lags(expected: float) -> None:
            assert lag() == expected

        async def waits() -> None:
            assert lag() in {4, 5}  # the one at work may count as read: nobody knows better before the first commit

        await eventually(waits, within=30)
        go_on.set()
        await eventually(lambda: lags(0), within=30)
        assert AGE.labels(consumer.name, "")._value.get() < 30


async def test_two_processes_with_one_instance_name_notice_and_end(reader: Reader) -> None:
    async with reader.reading(instance="one") as (_, first), reader.reading(instance="one") as (_, second):
        done, _ = await asyncio.wait([first, second], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert done
        with pytest.raises(ConsumerStuck, match="another process is the instance 'one' too"):
            done.pop().result()


async def test_a_restarted_instance_keeps_its_partitions(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    async with reader.reading(instance="one") as (one, _), reader.reading(instance="two") as (two, _):

        async def shared() -> None:
            assert len(one.subscription.partitions) == len(two.subscription.partitions) == PARTITIONS // 2

        await eventually(shared, within=30)
        before, revocations = two.subscription.partitions, two.subscription.revocations
        await one.stop()
        await one.start()

        async def back() -> None:
            assert one.running
            assert len(one.subscription.partitions) == PARTITIONS // 2

        await eventually(back, within=30)
        assert (two.subscription.partitions, two.subscription.revocations) == (before, revocations)
        await publish(kafka, channel, ["a", "b", "c", "d"], range(3))
        await until_noted(transactions, ["a", "b", "c", "d"], range(3))


@pytest.mark.timeout(170)
async def test_a_storm_of_rebalances_repeats_no_effect_and_keeps_the_order(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    """Two workers stay, a third joins and leaves every second for twenty seconds, while 2,000 messages arrive."""
    keys = [new_id() for _ in range(20)]
    async with reader.reading() as (one, watching_one), reader.reading() as (two, watching_two):

        async def storm() -> int:
            ends = time.monotonic() + 20
            rounds = 0
            while time.monotonic() < ends:
                guest = reader.consumer()
                await guest.start()
                await asyncio.sleep(1)
                await guest.stop()
                rounds += 1
            return rounds

        async def trickle() -> None:
            for n in range(100):
                await publish(kafka, channel, keys, [n])
                await asyncio.sleep(0.15)

        rounds, _ = await asyncio.gather(storm(), trickle())
        assert rounds >= 5
        await until_noted(transactions, keys, range(100), within=60)
        assert one.subscription.revocations + two.subscription.revocations >= 5
        assert not watching_one.done()
        assert not watching_two.done()
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [(0,)]


async def test_a_revoked_partition_is_given_up_behind_the_batch_in_flight(
    transactions: Transactions, channel: Channel, reader: Reader, kafka: Kafka
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait(event: Stepped) -> None:
        entered.set()
        await go_on.wait()

    reader.before = wait
    async with reader.reading() as (one, _):
        await publish(kafka, channel, ["a"], [1])
        await asyncio.wait_for(entered.wait(), 30)
        async with reader.reading() as (two, _):

            async def revoking() -> None:
                assert one.subscription.revocations == 1

            await eventually(revoking, within=30)
            go_on.set()

            async def shared() -> None:
                assert len(one.subscription.partitions) == len(two.subscription.partitions) == PARTITIONS // 2

            await eventually(shared, within=30)
            # Before the partition was given up.
            probe = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=reader.group, enable_auto_commit=False)
            await probe.start()
            offsets = [await probe.committed(TopicPartition(channel.name, p)) or 0 for p in range(PARTITIONS)]
            await probe.stop()
            assert sum(offsets) == 1
            await until_noted(transactions, ["a"], [1])


def test_what_is_transient_is_told_by_code_not_by_words() -> None:
    class Foreign(Exception):
        sqlstate = "40P01"

    assert is_transient(Foreign("Verklemmung entdeckt"))
