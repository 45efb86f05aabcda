"""A handler whose statement takes longer than the database allows: tried again, as it may be the database's fault, but
not for ever, as it may be the message's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.redrive import Redriver
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.messages.channel import Channel, Poison
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.connection import begin, connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.kafka import KafkaTransport
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.upkeep.overdue import deal_with_overdue
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Boolean, Column, DateTime, Identity, Integer, MetaData, Table, Text, text

METADATA = MetaData()
messaging_tables(METADATA)
done = Table(
    "done",
    METADATA,
    Column("position", Integer, Identity(), primary_key=True),
    Column("key", Text, nullable=False),
    Column("n", Integer, nullable=False),
)
due = Table(
    "due",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("deadline", DateTime(timezone=True), nullable=False),
    Column("finished", Boolean, nullable=False),
)
SLEEP = text("SELECT pg_sleep(60)")
SLOW, OTHERS = "slow", [f"other {n}" for n in range(5)]


class Worked(DomainEvent, frozen=True, kw_only=True):
    key: str
    n: int


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    """With a short limit, but not so short that a busy machine's ordinary statements reach it."""
    dsn = (await postgres.create_service_databases(["time_limit"]))["time_limit"]
    limit = {"server_settings": {"statement_timeout": "2s"}}
    async with new_tables(dsn, METADATA, pool_size=5, connect_args=limit) as engine:
        yield Transactions(engine, "time-limit")


async def rows(transactions: Transactions, sql: str) -> list[tuple[Any, ...]]:
    async with connect(transactions.engine) as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


class Work:
    """A channel, and what its handler does: note the number, after a statement that takes too long for ``slow``."""

    def __init__(self) -> None:
        self.channel = Channel(f"time-limit.{new_id()}", Kind.EVENT, key=lambda e: e.key)
        self.channel.carries("time-limit.Worked")(Worked)
        self.slow_times = 10**9
        self.handlers = MessageHandlers("time-limit")

        @self.handlers.handle(Worked)
        async def on_worked(event: Worked, uow: UnitOfWork) -> None:
            if event.key == SLOW and event.n == 0 and self.slow_times:
                self.slow_times -= 1
                await uow.execute(SLEEP, {})
            uow.append(done, {"key": event.key, "n": event.n})


@pytest.fixture
async def work(transactions: Transactions, kafka: Kafka) -> Work:
    """Two messages of each key are in Kafka."""
    work = Work()
    await ensure_topics(kafka.bootstrap, [work.channel.name], partitions=2)

    async def publish(uow: UnitOfWork) -> None:
        for n in range(2):
            for key in [SLOW, *OTHERS]:
                uow.publish(Worked(key=key, n=n), subject=key, version=n + 1)

    await transactions.run_operation(Operation(publish))
    publisher = KafkaPublisher(kafka.bootstrap, "time-limit")
    relay = PollingPublisher(transactions.engine, publisher, WakeUp())
    while await relay.run_once():
        continue
    await relay.release()
    await publisher.close()
    return work


async def read(transactions: Transactions, kafka: Kafka, work: Work, expected: int) -> None:
    """Until so many messages are done or kept."""
    arguments = ([work.channel], work.handlers, transactions, KafkaTransport(kafka.bootstrap))
    consumer = ChannelConsumer(f"g-{new_id()}", *arguments, poison=Poison.PARK_KEY)
    await consumer.start()
    try:

        async def ended() -> None:
            counts = "SELECT (SELECT count(*) FROM done) + (SELECT count(*) FROM dead_letters)"
            assert await rows(transactions, counts) == [(expected,)]

        await eventually(ended, within=100, every=0.2)
    finally:
        await consumer.stop()


async def test_a_statement_that_always_takes_too_long_is_a_dead_letter_after_some_attempts(
    transactions: Transactions, kafka: Kafka, work: Work
) -> None:
    await read(transactions, kafka, work, 2 * (1 + len(OTHERS)))
    letters = await rows(transactions, "SELECT state, key, error FROM dead_letters ORDER BY id")
    assert [(state, key) for state, key, _ in letters] == [("DEAD", b"slow"), ("PARKED", b"slow")]
    assert "QueryCanceledError" in letters[0][2]
    assert 10**9 - work.slow_times in {3, 4}  # with others in its batch, or not; and three times alone


async def test_a_statement_that_took_too_long_twice_takes_effect_the_next_time(
    transactions: Transactions, kafka: Kafka, work: Work
) -> None:
    work.slow_times = 2
    await read(transactions, kafka, work, 2 * (1 + len(OTHERS)))
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert await rows(transactions, "SELECT n FROM done WHERE key = 'slow' ORDER BY position") == [(0,), (1,)]


async def test_a_redrive_that_takes_too_long_is_dead_again_and_delays_no_other(
    transactions: Transactions, kafka: Kafka, work: Work
) -> None:
    await read(transactions, kafka, work, 2 * (1 + len(OTHERS)))
    (first,) = (await rows(transactions, "SELECT min(id) FROM dead_letters"))[0]
    async with begin(transactions.engine) as connection:
        await dead_letters.order_redrive(connection, first)
    assert await Redriver(BatchProcessor(work.handlers, transactions, [work.channel.name])).run_once() == 1
    states = await rows(transactions, "SELECT state, attempts FROM dead_letters ORDER BY id")
    assert states == [("DEAD", 2), ("PARKED", 0)]


async def test_what_is_overdue_and_takes_too_long_is_put_off(transactions: Transactions) -> None:
    async with begin(transactions.engine) as connection:
        await connection.execute(
            text("INSERT INTO due SELECT k, now() - interval '1 hour', false FROM unnest(ARRAY['a', 'b']) AS k")
        )

    async def deal(key: str, uow: UnitOfWork) -> bool:
        if key == "a":
            await uow.execute(SLEEP, {})
        return True

    assert await deal_with_overdue(due, "id", deal, transactions) == 1
    assert await rows(transactions, "SELECT id FROM due WHERE deadline > now()") == [("a",)]
