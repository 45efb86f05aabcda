"""Gatherings on a real PostgreSQL: they outlive the process that asked, and end once, whatever comes at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.gathering.collector import Collector, Gathering, close_forever, gatherings, gatherings_table
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.errors import DomainError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record
from ftgo_messaging.upkeep.overdue import deal_with_overdue
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, MetaData, Table, Text, text

METADATA = MetaData()
messaging_tables(METADATA)
GATHERINGS = gatherings(gatherings_table(METADATA))
ENDS = Table("ends", METADATA, Column("id", Text, nullable=False), Column("state", Text, nullable=False))
POLLS = Channel("poll.events", Kind.EVENT)
VOTES = Channel("poll.votes", Kind.REPLY)
DUTIES = Channel("duty.commands", Kind.COMMAND, key=lambda _: "duty")


@POLLS.carries("poll.Opened", replies_to=(VOTES,))
class Opened(DomainEvent, frozen=True, kw_only=True):
    pass


@DUTIES.carries("poll.Duty", replies_to=(VOTES,))
class Duty(Command[Success], frozen=True, kw_only=True):
    pass


async def on_end(gathering: Gathering, uow: UnitOfWork) -> None:
    uow.append(ENDS, {"id": gathering.id, "state": gathering.state.value})


def collector() -> Collector:
    """As a process that has just started makes it."""
    return Collector("polls", GATHERINGS, VOTES, on_end)


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["gathering"]))["gathering"]
    async with new_tables(dsn, METADATA, pool_size=10) as engine:
        yield Transactions(engine, "test")


async def sql(transactions: Transactions, statement: str) -> list[tuple[str, ...]]:
    async with transactions.engine.begin() as connection:
        result = await connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


async def ask(transactions: Transactions, within: float = 60.0) -> str:
    async def body(uow: UnitOfWork) -> str:
        return collector().ask(Opened(), uow, subject=new_id(), version=1, expected=2, within=timedelta(seconds=within))

    return await transactions.run_operation(Operation(body))


def received(message: Message | None) -> Record:
    assert message is not None
    headers = [(name, value.encode()) for name, value in message.headers.items()]
    return Record(message.channel, message.key.encode(), headers, message.body, f"{message.channel}/0@0")


def vote(gathering_id: str) -> Record:
    event = writer.event_message(Opened(), gathering_id, "asker", None, "s", 1, VOTES)
    return received(writer.reply_message(Success(), new_id(), "voter", event))


async def process(transactions: Transactions, *votes: Record) -> None:
    await BatchProcessor(collector().handlers("votes", [Success]), transactions).process(votes)


async def test_it_outlives_the_process_that_asked(transactions: Transactions) -> None:
    gathering_id = await ask(transactions)
    first, second = vote(gathering_id), vote(gathering_id)
    await process(transactions, first)
    await process(transactions, first)  # delivered again
    assert await sql(transactions, "SELECT * FROM ends") == []
    await process(transactions, second)
    await process(transactions, vote(gathering_id))
    assert await sql(transactions, "SELECT * FROM ends") == [(gathering_id, "COMPLETE")]
    counts = "SELECT json_array_length(answers), json_array_length(late), finished FROM gatherings"
    assert await sql(transactions, counts) == [(2, 1, True)]


async def test_a_loop_ends_it_at_its_deadline(transactions: Transactions) -> None:
    late, early = await ask(transactions, within=0.1), await ask(transactions)
    loop = asyncio.create_task(close_forever(collector(), transactions, every=0.1))

    async def ended() -> None:
        assert await sql(transactions, "SELECT * FROM ends") == [(late, "TIMED_OUT")]

    try:
        await eventually(ended)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert await sql(transactions, "SELECT CAST(id AS text) FROM gatherings WHERE NOT finished") == [(early,)]


async def test_the_last_answer_and_the_deadline_at_the_same_moment(transactions: Transactions) -> None:
    asked = [await ask(transactions) for _ in range(60)]
    await process(transactions, *(vote(gathering_id) for gathering_id in asked))
    await sql(transactions, "UPDATE gatherings SET deadline = now() - interval '1 s'")
    closing = collector()

    async def answers() -> None:
        for gathering_id in reversed(asked):
            await process(transactions, vote(gathering_id))

    await asyncio.gather(answers(), deal_with_overdue(GATHERINGS.table, "id", closing.close, transactions))
    ends = await sql(transactions, "SELECT id, state FROM ends ORDER BY id")
    assert [end[0] for end in ends] == sorted(asked)
    assert {end[1] for end in ends} == {"COMPLETE", "TIMED_OUT"}
    total = "SELECT sum(json_array_length(answers) + json_array_length(late)) FROM gatherings"
    assert await sql(transactions, total) == [(120,)]


async def test_of_an_events_listeners_only_those_answer_who_say_something(transactions: Transactions) -> None:
    """A command is always answered: there is one who was asked."""
    said: list[Success | None] = [None, Success()]
    handlers = MessageHandlers("listener")

    @handlers.handle(Opened)
    async def opened(event: Opened, uow: UnitOfWork) -> Success | None:
        if not said:
            raise DomainError("I refuse")
        return said.pop(0)

    @handlers.handle(Duty)
    async def duty(command: Duty, uow: UnitOfWork) -> None:
        return None

    async def answers_to(message: Message) -> list[tuple[str, ...]]:
        await BatchProcessor(handlers, transactions).process([received(message)])
        query = "SELECT headers->>'type' FROM outbox WHERE headers->>'inreplyto' = "
        return await sql(transactions, f"{query}'{message.id}'")

    def event() -> Message:
        return writer.event_message(Opened(), new_id(), "asker", None, "s", 1, VOTES)

    assert await answers_to(event()) == []
    assert await answers_to(event()) == [("ftgo.messaging.Success",)]
    assert await answers_to(event()) == [("ftgo.messaging.Failure",)]
    assert await answers_to(writer.command_message(Duty(), new_id(), "asker", None, VOTES, None, None)) == [
        ("ftgo.messaging.Success",)
    ]
