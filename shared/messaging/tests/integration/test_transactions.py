"""The messaging library against a real PostgreSQL: atomicity, duplicates, order, relay, sagas."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.connection import begin, connect
from ftgo_messaging.runtime.errors import DomainError, is_transient, sqlstate
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transaction.aggregates import Aggregates
from ftgo_messaging.transaction.transactions import GroupCommit, Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record, Sent
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, Integer, MetaData, Table, Text, Uuid, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

METADATA = MetaData()
messaging_tables(METADATA)
counters = Table(
    "counters",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("value", Integer, nullable=False),
    Column("note", Text, nullable=True),
)
journal = Table("journal", METADATA, Column("entry", Text, nullable=False))


@dataclass(frozen=True, slots=True)
class Counter:
    id: str
    value: int
    note: str | None = None


COUNTERS = Aggregates(
    counters,
    "id",
    lambda row: Counter(str(row["id"]), row["value"], row["note"]),
    lambda c: {"id": c.id, "value": c.value, "note": c.note},
)
REPLIES = Channel("counter.replies", Kind.REPLY)
COMMANDS = Channel("counter.commands", Kind.COMMAND, key=lambda c: c.id)
EVENTS = Channel("counter.events", Kind.EVENT)


@COMMANDS.carries("counter.Add", replies_to=(REPLIES,))
class Add(Command[Success], frozen=True, kw_only=True):
    id: str
    amount: int


@EVENTS.carries("counter.Added")
class Added(DomainEvent, frozen=True, kw_only=True):
    value: int


class TooMuch(DomainError):
    slug = "too-much"


TWICE = text("INSERT INTO counters (id, value) VALUES (CAST(:id AS uuid), 0), (CAST(:id AS uuid), 0)")


async def add(command: Add, uow: UnitOfWork) -> Success:
    counter = await uow.find(COUNTERS, command.id) or Counter(command.id, 0)
    if command.amount == 666:
        raise RuntimeError("a bug")
    if command.amount == 23505:
        await uow.execute(TWICE, {"id": command.id})
    counter = replace(counter, value=counter.value + command.amount)
    uow.save(COUNTERS, counter)
    uow.append(journal, {"entry": f"{command.id}:{command.amount}"})
    uow.publish(Added(value=counter.value), subject=counter.id, version=counter.value)
    if command.amount > 100:
        raise TooMuch
    return Success()


@pytest.fixture(scope="module")
async def engine(postgres: Postgres) -> AsyncIterator[AsyncEngine]:
    dsn = (await postgres.create_service_databases(["library"]))["library"]
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), pool_size=10)
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def transactions(engine: AsyncEngine) -> Transactions:
    async with engine.begin() as connection:
        for table in METADATA.tables:
            await connection.execute(text(f"TRUNCATE {table}"))
    return Transactions(engine, "library")


@pytest.fixture
def processor(transactions: Transactions) -> BatchProcessor:
    handlers = MessageHandlers("counter")
    handlers.handle(Add, needs=lambda c: [(COUNTERS, c.id)])(add)
    return BatchProcessor(handlers, transactions)


_positions = itertools.count()


def received(counter: str, amount: int, message_id: str | None = None, **headers: str) -> Record:
    every = {
        m.ID: message_id or new_id(),
        m.TYPE: "counter.Add",
        m.SOURCE: "test",
        m.REPLY_CHANNEL: REPLIES.name,
        m.SAGA_ID: counter,
        **headers,
    }
    body = json.dumps({"id": counter, "amount": amount}).encode()
    return Record(
        COMMANDS.name,
        counter.encode(),
        [(k, v.encode()) for k, v in every.items()],
        body,
        f"{COMMANDS.name}/0@{next(_positions)}",
    )


async def rows(transactions: Transactions, sql: str) -> list[Any]:
    async with transactions.engine.connect() as connection:
        return [tuple(r) if len(r) > 1 else r[0] for r in await connection.execute(text(sql))]


class Recorder:
    """Stands where the broker is; refuses the keys that it is told to."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.refuse: set[str] = set()

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        accepted = [x.key not in self.refuse for x in messages]
        self.published += [x for x, ok in zip(messages, accepted, strict=True) if ok]
        return [Sent.CONFIRMED if ok else Sent.REFUSED for ok in accepted]


async def test_a_batch_takes_effect_once_and_answers_every_command(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    a, b = new_id(), new_id()
    batch = [received(a, 1), received(b, 10), received(a, 2), received(a, 3)]
    batch.append(batch[0])  # the same id twice in one batch
    await processor.process(batch)
    await processor.process(batch)  # and the whole batch once more
    assert sorted(await rows(transactions, "SELECT value FROM counters")) == [6, 10]
    assert await rows(transactions, f"SELECT entry FROM journal WHERE entry LIKE '{a}%'") == [
        f"{a}:1", f"{a}:2", f"{a}:3",
    ]  # fmt: skip
    assert await rows(transactions, "SELECT count(*) FROM outbox WHERE channel = 'counter.replies'") == [4]


async def test_a_refusal_discards_only_its_own_writes_and_is_answered(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    a = new_id()
    await processor.process([received(a, 1), received(a, 101), received(a, 2)])
    assert transactions.commits == 1
    assert await rows(transactions, "SELECT value FROM counters") == [3]
    assert await rows(transactions, "SELECT count(*) FROM journal") == [2]
    assert await rows(transactions, "SELECT count(*) FROM processed_messages") == [3]
    outcomes = await rows(
        transactions,
        "SELECT headers->>'outcome' FROM outbox WHERE channel = 'counter.replies' ORDER BY position",
    )
    assert outcomes == ["SUCCESS", "FAILURE", "SUCCESS"]


async def test_a_bug_becomes_one_dead_letter_and_the_others_go_on(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    a = new_id()
    poison = [
        received(a, 666),
        received(a, 1, **{m.TYPE: "counter.Unknown"}),
        received(a, 1, **{m.REPLY_CHANNEL: "somebody.elses.topic"}),
        Record(COMMANDS.name, None, [(m.ID, b"\xff")], None, f"{COMMANDS.name}/1@7"),
    ]
    await processor.process([received(a, 1), *poison, received(a, 2)])
    assert await rows(transactions, "SELECT value FROM counters") == [3]
    errors = await rows(transactions, "SELECT error FROM dead_letters ORDER BY id")
    assert len(errors) == 4
    assert any("a bug" in e for e in errors)
    await processor.process(poison[:1])
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [4]


async def test_a_lower_position_that_commits_later_is_published_too(transactions: Transactions) -> None:
    """The gap: A takes its position first and commits last. A cursor over positions would lose A."""
    recorder = Recorder()
    relay = PollingPublisher(transactions.engine, recorder, WakeUp())
    a, b = new_id(), new_id()
    async with connect(transactions.engine) as slow:
        transaction = slow.driver.transaction()
        await transaction.start()
        uow = UnitOfWork(slow, "library")
        uow.publish(Added(value=1), subject=a, version=1)
        await uow.flush()
        await transactions.run_operation(Operation(lambda uow: _publish(uow, b)))
        assert await relay.run_once() == 1
        await transaction.commit()
    assert await relay.run_once() == 1
    assert [x.key for x in recorder.published] == [b, a]


async def _publish(uow: UnitOfWork, subject: str) -> None:
    uow.publish(Added(value=1), subject=subject, version=1)


async def test_concurrent_writers_keep_the_order_of_each_key(transactions: Transactions) -> None:
    recorder = Recorder()
    relay = PollingPublisher(transactions.engine, recorder, WakeUp(), batch=7)
    keys = [new_id() for _ in range(4)]

    async def writer() -> None:
        for key in keys * 5:
            await transactions.run_operation(Operation(lambda uow, key=key: add(Add(id=key, amount=1), uow)))

    await transactions.run_operation(Operation(lambda uow: _create(uow, keys)))
    writers = asyncio.gather(*(writer() for _ in range(6)))
    while not writers.done() or await relay.run_once():
        await relay.run_once()
    await writers
    for key in keys:
        assert [int(x.headers[m.SEQUENCE]) for x in recorder.published if x.key == key] == list(range(1, 31))


async def _create(uow: UnitOfWork, keys: Sequence[str]) -> None:
    for key in keys:
        uow.save(COUNTERS, Counter(key, 0))


async def test_a_second_relay_waits_and_a_deposed_one_deletes_nothing(transactions: Transactions) -> None:
    first, second = Recorder(), Recorder()
    one = PollingPublisher(transactions.engine, first, WakeUp())
    two = PollingPublisher(transactions.engine, second, WakeUp())
    await transactions.run_operation(Operation(lambda uow: _publish(uow, new_id())))
    assert await one.run_once() == 1
    await transactions.run_operation(Operation(lambda uow: _publish(uow, new_id())))
    assert await two.run_once() == 0
    await rows(transactions, "SELECT 1")
    async with transactions.engine.begin() as connection:  # one is paused for longer than its lease
        await connection.execute(text("UPDATE relay_lease SET expires_at = now() - interval '1 second'"))
    first.refuse = {"nobody"}
    original = first.publish

    async def paused(messages: Sequence[Message]) -> list[Sent]:
        two.lease.forget()  # it is time to ask again
        assert await two.run_once() == 1  # two takes over while one is between reading and deleting
        return await original(messages)

    first.publish = paused  # type: ignore[method-assign]
    assert await one.run_once() == 0
    assert len(second.published) == 1


async def test_a_refused_key_stays_and_others_flow(transactions: Transactions) -> None:
    recorder = Recorder()
    relay = PollingPublisher(transactions.engine, recorder, WakeUp())
    a, b = new_id(), new_id()
    recorder.refuse = {a}
    for key in (a, b, a):
        await transactions.run_operation(Operation(lambda uow, key=key: _publish(uow, key)))
    assert await relay.run_once() == 1
    recorder.refuse = set()

    async def tried_again() -> None:
        await relay.run_once()
        assert len(recorder.published) == 3

    await eventually(tried_again)
    assert [x.key for x in recorder.published] == [b, a, a]


async def test_concurrent_requests_share_commits_and_fail_alone(transactions: Transactions) -> None:
    group = GroupCommit(transactions)
    group.start()
    keys = [new_id() for _ in range(40)]
    amounts = [666 if i == 7 else 101 if i == 9 else 1 for i in range(40)]
    results = await asyncio.gather(
        *(
            group.submit(
                Operation(lambda uow, k=k, a=a: add(Add(id=k, amount=a), uow), [lambda uow, k=k: [(COUNTERS, k)]])
            )
            for k, a in zip(keys, amounts, strict=True)
        ),
        return_exceptions=True,
    )
    assert isinstance(results[7], RuntimeError)
    assert isinstance(results[9], TooMuch)
    assert sum(isinstance(r, Success) for r in results) == 38
    assert await rows(transactions, "SELECT count(*) FROM counters") == [38]
    before = transactions.commits
    await asyncio.gather(*(group.submit(Operation(lambda uow, k=k: add(Add(id=k, amount=1), uow))) for k in keys))
    assert transactions.commits - before < 10
    await group.stop()


async def test_a_restarted_database_costs_no_request(transactions: Transactions, postgres: Postgres) -> None:
    """All pooled connections are dead after an immediate stop; the next transactions notice and take new ones."""
    keys = [new_id() for _ in range(8)]
    await asyncio.gather(
        *(transactions.run_operation(Operation(lambda uow, k=k: add(Add(id=k, amount=1), uow))) for k in keys)
    )
    postgres.stop(immediate=True)
    with pytest.raises(Exception) as away:
        await transactions.run_operation(Operation(lambda uow: add(Add(id=keys[0], amount=1), uow)))
    assert is_transient(away.value)
    await postgres.start()
    await asyncio.gather(
        *(transactions.run_operation(Operation(lambda uow, k=k: add(Add(id=k, amount=1), uow))) for k in keys)
    )
    assert await rows(transactions, "SELECT value FROM counters") == [2] * 8


async def until_one_waits(transactions: Transactions) -> None:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    assert await rows(transactions, sql) == [1]


async def test_two_batches_that_create_the_same_aggregate_both_take_effect(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    """Both find no row and insert it. The second one's 23505 is no poison: it runs again, and finds the row."""
    a, b = new_id(), new_id()
    async with begin(transactions.engine) as first:
        uow = UnitOfWork(first, "library")
        await add(Add(id=a, amount=1), uow)
        await uow.flush()
        second = asyncio.create_task(processor.process([received(a, 2), received(b, 1)]))
        alone = asyncio.create_task(processor.process([received(a, 4)]))

        async def both_wait() -> None:
            sql = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            assert await rows(transactions, sql) == [2]

        await eventually(both_wait)
    await asyncio.gather(second, alone)
    assert await rows(transactions, f"SELECT value FROM counters WHERE id = '{a}'") == [7]
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [0]


async def test_two_requests_that_create_the_same_aggregate_both_take_effect(transactions: Transactions) -> None:
    """Of two processes, so that they do not share a transaction."""
    a = new_id()
    group = GroupCommit(transactions)
    group.start()
    async with begin(transactions.engine) as first:
        uow = UnitOfWork(first, "library")
        await add(Add(id=a, amount=1), uow)
        await uow.flush()
        second = asyncio.create_task(group.submit(Operation(lambda uow: add(Add(id=a, amount=2), uow))))
        await eventually(lambda: until_one_waits(transactions))
    await second
    await group.stop()
    assert await rows(transactions, "SELECT value FROM counters") == [3]


async def test_a_violation_that_repeats_itself_is_a_bug_and_ends(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    a, b = new_id(), new_id()
    await processor.process([received(a, 1), received(a, 23505), received(b, 1)])
    assert sorted(await rows(transactions, "SELECT value FROM counters")) == [1, 1]
    errors = await rows(transactions, "SELECT error FROM dead_letters")
    assert len(errors) == 1
    assert "UniqueViolation" in errors[0]
    group = GroupCommit(transactions)
    group.start()
    with pytest.raises(Exception, match="duplicate key") as violation:
        await group.submit(Operation(lambda uow: add(Add(id=a, amount=23505), uow)))
    assert sqlstate(violation.value) == "23505"
    await group.stop()
