"""Who meets in one database, and in which order: consumers, two owners of a partition, transactions, callers."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.duplicates import Claim, claim, claim_and_look
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.redrive import Redriver
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.runtime import failpoints
from ftgo_messaging.runtime.connection import Connection, begin, connect
from ftgo_messaging.runtime.errors import DomainError, Overloaded, StaleAggregate, TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.aggregates import Aggregates, Refs
from ftgo_messaging.transaction.transactions import GroupCommit, Operation, Transactions, run_operations
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, Integer, MetaData, Table, Text, text

METADATA = MetaData()
messaging_tables(METADATA)
accounts = Table("accounts", METADATA, Column("name", Text, primary_key=True), Column("value", Integer, nullable=False))
journal = Table("journal", METADATA, Column("entry", Text, nullable=False))
EVENTS = Channel("shared.events", Kind.EVENT)
COMMANDS = Channel("shared.commands", Kind.COMMAND, key=lambda c: c.account)


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    value: int


ACCOUNTS = Aggregates(
    accounts, "name", lambda row: Account(row["name"], row["value"]), lambda a: {"name": a.name, "value": a.value}
)


@COMMANDS.carries("shared.Pay")
class Pay(Command[Success], frozen=True, kw_only=True):
    account: str
    amount: int


@EVENTS.carries("shared.Paid")
class Paid(DomainEvent, frozen=True, kw_only=True):
    account: str


class Refused(DomainError):
    slug = "refused"


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["shared"]))["shared"]
    async with new_tables(dsn, METADATA, pool_size=10) as engine:
        yield Transactions(engine, "shared")


def consumer(transactions: Transactions, name: str, poison: set[int]) -> BatchProcessor:
    """Adds to the account ``<name>-<account>``; cannot handle the amounts of ``poison``."""
    handlers = MessageHandlers(name)

    @handlers.handle(Pay)
    async def pay(command: Pay, uow: UnitOfWork) -> None:
        if command.amount in poison:
            raise RuntimeError(f"cannot pay {command.amount}")
        await added(uow, f"{name}-{command.account}", command.amount)

    return BatchProcessor(handlers, transactions, [COMMANDS.name])


async def added(uow: UnitOfWork, name: str, amount: int) -> Account:
    account = await uow.find(ACCOUNTS, name) or Account(name, 0)
    account = replace(account, value=account.value + amount)
    uow.save(ACCOUNTS, account)
    return account


_positions = iter(range(1_000_000))


def received(account: str, amount: int) -> Record:
    headers = {m.ID: new_id(), m.TYPE: "shared.Pay", m.SOURCE: "test"}
    pairs = [(name, value.encode()) for name, value in headers.items()]
    body = json.dumps({"account": account, "amount": amount}).encode()
    return Record(COMMANDS.name, account.encode(), pairs, body, f"{COMMANDS.name}/0@{next(_positions)}")


async def rows(transactions: Transactions, sql: str) -> list[Any]:
    async with connect(transactions.engine) as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


async def values(transactions: Transactions) -> dict[str, int]:
    return dict(await rows(transactions, "SELECT name, value FROM accounts"))


async def waits_for_a_lock(transactions: Transactions, *tasks: asyncio.Task[Any]) -> None:
    """Each of the tasks does, and none has got through."""

    async def all_wait() -> None:
        if any(task.done() for task in tasks):
            pytest.fail("it did not wait")
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        assert await rows(transactions, sql) == [(len(tasks),)]

    await eventually(all_wait)


# -- consumers -------------------------------------------------------------------------------------------------------


async def test_two_consumers_of_a_database_know_nothing_of_each_other(transactions: Transactions) -> None:
    """Each handles every message, and what is dead, parked or ordered in one does not concern the other."""
    poison = {1}
    one, two = consumer(transactions, "one", poison), consumer(transactions, "two", {8})
    first, second, third = received("a", 1), received("a", 2), received("a", 4)
    await one.process([first, second])
    await two.process([received("b", 8)])  # it too has a parked key, and looks for them
    await two.process([first, second, third])
    assert await values(transactions) == {"two-a": 7}
    poison.clear()
    ((letter_id,),) = await rows(transactions, "SELECT min(id) FROM dead_letters")
    async with begin(transactions.engine) as connection:
        await dead_letters.order_redrive(connection, letter_id)
    assert await Redriver(two).run_once() == 0
    assert await Redriver(one).run_once() == 2
    await one.process([third])
    assert await values(transactions) == {"one-a": 7, "two-a": 7}


async def test_ids_are_claimed_in_one_order(transactions: Transactions) -> None:
    """Two batches that share ids must not wait for each other in a circle: whoever waits for the later id holds the
    earlier one already, wherever that stands in the batch."""
    earlier, later = (Claim("test", message_id) for message_id in sorted([new_id(), new_id()]))

    async def claimed(*claims: Claim) -> int:
        async with begin(transactions.engine) as connection:
            return len(await claim(connection, "shared", claims))

    async with begin(transactions.engine) as holder:
        await claim(holder, "shared", [later])
        both = asyncio.create_task(claimed(later, earlier))
        await waits_for_a_lock(transactions, both)
        one = asyncio.create_task(claimed(earlier))
        await waits_for_a_lock(transactions, both, one)
    assert await asyncio.gather(both, one) == [1, 0]


async def test_parked_keys_are_looked_for_only_when_there_may_be_some(transactions: Transactions) -> None:
    """A statement less for nearly every batch."""
    claims = [Claim("test", new_id()) for _ in range(2)]

    async def looks(*claims: Claim) -> bool:
        async with begin(transactions.engine) as connection:
            return (await claim_and_look(connection, "shared", claims))[1]

    assert not await looks(*claims)
    assert await looks(claims[0]), "a duplicate may have been waited for"
    assert not await looks()
    async with begin(transactions.engine) as connection:
        await dead_letters.write(connection, "shared", received("a", 1), "no", parks_key=True, identified=True)
    shared = new_id()
    assert await looks(Claim("one", shared), Claim("other", shared))
    assert await looks()


async def keep(connection: Connection, record: Record) -> None:
    await dead_letters.write(connection, "shared", record, "no message", parks_key=False, identified=False)


async def test_two_owners_of_a_partition_keep_a_record_without_an_id_once(transactions: Transactions) -> None:
    record = Record(COMMANDS.name, None, [], b"rubbish", f"{COMMANDS.name}/0@{next(_positions)}")

    async def later_owner() -> None:
        async with begin(transactions.engine) as connection:
            await keep(connection, record)

    async with begin(transactions.engine) as earlier_owner:
        await keep(earlier_owner, record)
        later = asyncio.create_task(later_owner())
        await waits_for_a_lock(transactions, later)
    await later
    assert await rows(transactions, "SELECT count(*) FROM dead_letters") == [(1,)]


async def test_another_record_at_the_same_place_is_kept_too(transactions: Transactions) -> None:
    """A topic that was made anew counts from 0 again."""
    record = Record(COMMANDS.name, None, [], b"rubbish", f"{COMMANDS.name}/0@{next(_positions)}")
    bodies = [b"rubbish", b"other rubbish", None]
    for body in bodies * 2:
        async with begin(transactions.engine) as connection:
            await keep(connection, replace(record, body=body))
    assert await rows(transactions, "SELECT body FROM dead_letters ORDER BY id") == [(body,) for body in bodies]


# -- aggregates ------------------------------------------------------------------------------------------------------


async def test_an_aggregate_that_went_away_meanwhile_ends_the_transaction(transactions: Transactions) -> None:
    """What was decided by it must not be written, nor its messages go out."""
    await transactions.run_operation(Operation(lambda uow: added(uow, "a", 1)))

    async def body(uow: UnitOfWork) -> None:
        await added(uow, "a", 1)
        await added(uow, "b", 1)
        await uow.execute(text("DELETE FROM accounts WHERE name = 'a'"))

    with pytest.raises(StaleAggregate, match="accounts: 1 rows went away"):
        await transactions.run_operation(Operation(body))
    assert await values(transactions) == {"a": 1}


async def test_aggregates_are_locked_in_the_order_of_their_keys(transactions: Transactions) -> None:
    """However the server finds them: whoever waits for the first holds none of the others, so there is no circle."""
    await rows(transactions, "INSERT INTO accounts VALUES ('b', 0), ('a', 0)")  # b lies in front of a
    plain = [text(f"SET LOCAL enable_{way} = off") for way in ("indexscan", "bitmapscan", "indexonlyscan")]

    async def load_both() -> None:
        async with begin(transactions.engine) as connection:
            for setting in plain:
                await connection.execute(setting)
            await UnitOfWork(connection, "shared").load([(ACCOUNTS, "b"), (ACCOUNTS, "a")])

    async with begin(transactions.engine) as holder:
        await UnitOfWork(holder, "shared").load([(ACCOUNTS, "a")])
        both = asyncio.create_task(load_both())
        await waits_for_a_lock(transactions, both)
        await rows(transactions, "SELECT 1 FROM accounts WHERE name = 'b' FOR UPDATE NOWAIT")
    await both


async def test_who_is_told_after_the_commit_sees_what_it_has_written(transactions: Transactions) -> None:
    """And an operation that was refused has written nothing."""
    seen: list[UnitOfWork] = []
    transactions.after_commit.append(seen.append)

    async def operation(uow: UnitOfWork, name: str, refusal: bool) -> None:
        await added(uow, name, 1)
        uow.append(journal, {"entry": name})
        uow.publish(Paid(account=name), subject=name, version=1)
        if refusal:
            raise Refused

    async def body(uow: UnitOfWork, _: Connection) -> None:
        operations = [("a", False), ("b", True), ("c", False)]
        await run_operations(uow, [Operation(lambda uow, of=of: operation(uow, *of)) for of in operations])

    await transactions.run(body)
    (uow,) = seen
    assert sorted(uow.changed(ACCOUNTS)) == ["a", "c"]
    assert uow.changed(replace(ACCOUNTS, lock=False)) == []
    assert [x.key for x in uow.messages] == ["a", "c"]
    assert uow.appended(journal) == [{"entry": "a"}, {"entry": "c"}]
    assert uow.appended(accounts) == ()
    assert await rows(transactions, "SELECT entry FROM journal") == [("a",), ("c",)]


# -- callers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def group(transactions: Transactions) -> AsyncIterator[GroupCommit]:
    group = GroupCommit(transactions, workers=1)
    yield group
    for worker in group.workers:
        worker.cancel()
    await asyncio.gather(*group.workers, return_exceptions=True)


def submitted(group: GroupCommit, bodies: Sequence[Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(group.submit(Operation(body))) for body in bodies]


@pytest.mark.parametrize("fate", ["done", "broken"])
async def test_a_caller_that_has_gone_takes_no_answer_from_the_others(
    transactions: Transactions, group: GroupCommit, fate: str
) -> None:
    """It goes while the transaction that all share is running; its own operation is done all the same."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def held(uow: UnitOfWork) -> Account:
        entered.set()
        await go_on.wait()
        return await added(uow, "gone", 1)

    async def broken(uow: UnitOfWork) -> None:
        raise RuntimeError("breaks the transaction that all share")

    others = [lambda uow: added(uow, "a", 1), broken if fate == "broken" else lambda uow: added(uow, "b", 1)]
    gone, *callers = submitted(group, [held, *others])
    await asyncio.sleep(0)  # all are in the queue before the worker begins
    group.start()
    await entered.wait()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    go_on.set()
    async with asyncio.timeout(5):
        answered = await asyncio.gather(*callers, return_exceptions=True)
        assert await group.submit(Operation(lambda uow: added(uow, "later", 1))) == Account("later", 1)
    assert answered[0] == Account("a", 1)
    assert isinstance(answered[1], RuntimeError if fate == "broken" else Account)
    assert (await values(transactions))["gone"] == 1


async def test_a_request_that_is_refused_after_its_own_statement_leaves_nothing(
    transactions: Transactions, group: GroupCommit
) -> None:
    async def refused(uow: UnitOfWork) -> None:
        await uow.execute(text("INSERT INTO accounts VALUES ('refused', 1)"))
        raise Refused

    callers = submitted(group, [refused, lambda uow: added(uow, "a", 1)])
    await asyncio.sleep(0)
    group.start()
    answered = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answered[0], Refused)
    assert answered[1] == Account("a", 1)
    assert await values(transactions) == {"a": 1}


async def test_one_request_more_than_may_wait_is_refused_at_once(transactions: Transactions) -> None:
    doors = iter([None, None, None, Overloaded("closed")])

    def admit() -> None:
        if (closed := next(doors, None)) is not None:
            raise closed

    group = GroupCommit(transactions, limit=2, workers=1, admit=admit)
    waiting = submitted(group, [lambda uow: added(uow, "a", 1)] * 2)
    await asyncio.sleep(0)
    assert group.waiting == 2
    for sentence in ("2 requests are waiting already", "closed"):
        with pytest.raises(Overloaded, match=sentence) as refusal:
            await group.submit(Operation(lambda uow: added(uow, "refused", 1)))
        assert refusal.value.retry_after == 1
    group.start()
    await asyncio.gather(*waiting)
    assert group.waiting == 0
    await group.stop()
    assert await values(transactions) == {"a": 2}


async def test_a_stop_finishes_what_is_queued_in_as_few_transactions_as_may_be(transactions: Transactions) -> None:
    group = GroupCommit(transactions, max_operations=2, workers=1)
    busy: list[int] = []

    async def counted(uow: UnitOfWork) -> Account:
        busy.append(group.busy)
        return await added(uow, "a", 1)

    callers = submitted(group, [counted] * 5)
    await asyncio.sleep(0)
    group.start()
    async with asyncio.timeout(5):
        await group.stop()
    assert [account.value for account in await asyncio.gather(*callers)] == [1, 2, 3, 4, 5]
    assert transactions.commits == 3
    assert (busy, group.busy) == ([1] * 5, 0)
    assert all(worker.done() for worker in group.workers)


async def test_an_outage_is_told_to_all_who_share_it_and_nobody_is_tried_alone(
    transactions: Transactions, group: GroupCommit
) -> None:
    """With the database away each of them would wait for its own time-out, one after the other."""
    tried: list[str] = []

    async def away(uow: UnitOfWork) -> None:
        tried.append("away")
        raise TransientError("the database is away")

    async def other(uow: UnitOfWork) -> Account:
        tried.append("other")
        return await added(uow, "a", 1)

    callers = submitted(group, [other, away])
    await asyncio.sleep(0)
    group.start()
    answered = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(answer) for answer in answered] == [TransientError] * 2
    assert tried == ["other", "away"]
    assert await values(transactions) == {}


async def test_an_error_that_nobody_foresaw_is_told_and_ends_no_worker(
    transactions: Transactions, group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ended would leave all later requests waiting for ever."""
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("group_commit.collected=raise"))
    callers = submitted(group, [lambda uow: added(uow, "a", 1)] * 2)
    await asyncio.sleep(0)
    group.start()
    async with asyncio.timeout(5):
        answered = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(answer) for answer in answered] == [failpoints.FailpointReached] * 2
        assert await group.submit(Operation(lambda uow: added(uow, "a", 1))) == Account("a", 1)


async def test_stages_of_needs_see_what_the_one_before_has_loaded(transactions: Transactions) -> None:
    await rows(transactions, "INSERT INTO accounts VALUES ('a', 1), ('b', 2), ('c', 3)")
    seen: list[Account | None] = []

    def then(uow: UnitOfWork) -> Refs:
        seen.append(uow.peek(ACCOUNTS, "a"))
        return [(ACCOUNTS, "b")]

    async def run(uow: UnitOfWork) -> list[Account | None]:
        return [uow.peek(ACCOUNTS, name) for name in "abc"]

    stages = [lambda _: [(ACCOUNTS, "a")], then]
    loaded = [Account("a", 1), Account("b", 2), None]
    assert await transactions.run_operation(Operation(run, stages)) == loaded

    async def both(uow: UnitOfWork, _: Connection) -> list[Any]:
        return await run_operations(uow, [Operation(run, stages[:1]), Operation(run, stages)])

    assert await transactions.run(both) == [loaded, loaded]
    assert seen == [Account("a", 1)] * 2
