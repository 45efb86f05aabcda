"""What lies beyond ``Exception`` in a handler: one dead letter, one failed request, and nobody stops working."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.redrive import Redriver
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.runtime.contained import Misdirected, contained
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import GroupCommit, Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, MetaData, Table, Text, text

METADATA = MetaData()
messaging_tables(METADATA)
done = Table("done", METADATA, Column("who", Text, nullable=False))
COMMANDS = Channel("contained.commands", Kind.COMMAND, key=lambda c: c.who)


@COMMANDS.carries("contained.Do")
class Do(Command[Success], frozen=True, kw_only=True):
    who: str


async def another_ones_cancellation() -> None:
    other = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(other.cancel)
    await other


async def ones_own_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


async def exit_() -> None:
    raise SystemExit(3)


async def generator_exit() -> None:
    raise GeneratorExit


async def unknown() -> None:
    class Panic(BaseException):
        """Of a native library, for instance."""

    raise Panic("index out of bounds")


Bad = Callable[[], Awaitable[None]]
BAD: list[Bad] = [another_ones_cancellation, ones_own_cancellation, exit_, generator_exit, unknown]


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["contained"]))["contained"]
    async with new_tables(dsn, METADATA, pool_size=4, max_overflow=0) as engine:
        yield Transactions(engine, "contained")


def processor(transactions: Transactions, bad: Bad) -> BatchProcessor:
    handlers = MessageHandlers("contained")

    @handlers.handle(Do)
    async def do(command: Do, uow: UnitOfWork) -> Success:
        uow.append(done, {"who": command.who})
        if command.who == "bad":
            await bad()
        return Success()

    return BatchProcessor(handlers, transactions)


def received(who: str) -> Record:
    headers = [(m.ID, new_id().encode()), (m.TYPE, b"contained.Do"), (m.SOURCE, b"test")]
    return Record(COMMANDS.name, who.encode(), headers, f'{{"who": "{who}"}}'.encode(), f"{COMMANDS.name}/0@0")


async def rows(transactions: Transactions, sql: str) -> list[str]:
    async with transactions.engine.connect() as connection:
        return [row[0] for row in await connection.execute(text(sql))]


@pytest.mark.parametrize("bad", BAD)
async def test_in_a_handler_it_is_a_dead_letter(transactions: Transactions, bad: Bad) -> None:
    await processor(transactions, bad).process([received(who) for who in ("a", "bad", "b")])
    assert await rows(transactions, "SELECT who FROM done") == ["a", "b"]
    (error,) = await rows(transactions, "SELECT error FROM dead_letters")
    assert "Misdirected" in error
    assert bad.__name__ in error or bad is ones_own_cancellation


async def test_a_missing_file_is_one_too(transactions: Transactions) -> None:
    """By its type it is an OSError, as a connection that is refused is."""

    async def read() -> None:
        Path("/no/such/template.txt").read_text()  # noqa: ASYNC240 - a handler that does so is the point

    await processor(transactions, read).process([received(who) for who in ("a", "bad", "b")])
    assert await rows(transactions, "SELECT who FROM done") == ["a", "b"]
    (error,) = await rows(transactions, "SELECT error FROM dead_letters")
    assert "/no/such/template.txt" in error


@pytest.mark.parametrize("bad", BAD)
async def test_in_a_step_it_fails_one_request_and_no_worker_ends(transactions: Transactions, bad: Bad) -> None:
    group = GroupCommit(transactions)
    group.start()

    async def fail(_: UnitOfWork) -> None:
        await bad()

    async def succeed(_: UnitOfWork) -> str:
        return "fine"

    async with asyncio.timeout(20):
        failed = await asyncio.gather(*(group.submit(Operation(fail)) for _ in range(4)), return_exceptions=True)
        assert [type(f) for f in failed] == [Misdirected] * 4
        assert await asyncio.gather(*(group.submit(Operation(succeed)) for _ in range(4))) == ["fine"] * 4
        assert not any(worker.done() for worker in group.workers)
        await group.stop()


@pytest.mark.parametrize("bad", BAD)
async def test_in_a_redrive_the_letter_is_dead_again(transactions: Transactions, bad: Bad) -> None:
    processing = processor(transactions, bad)
    await processing.process([received("bad")])
    async with transactions.engine.begin() as connection:
        await connection.execute(text("UPDATE dead_letters SET state = 'REDRIVE', error = 'ordered'"))
    assert await Redriver(processing).run_once() == 1
    (error,) = await rows(transactions, "SELECT error FROM dead_letters WHERE state = 'DEAD'")
    assert "Misdirected" in error


async def test_a_cancellation_that_is_asked_for_is_one(transactions: Transactions) -> None:
    """It reaches the handler, rolls back, and whoever is cancelled knows."""
    entered, seen = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.set()
            raise

    processing = asyncio.create_task(processor(transactions, wait).process([received("bad")]))
    await asyncio.wait_for(entered.wait(), 20)
    processing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await processing
    assert seen.is_set()
    assert await rows(transactions, "SELECT who FROM done") == []
    assert await rows(transactions, "SELECT error FROM dead_letters") == []

    async def given_back() -> None:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        assert await rows(transactions, idle) == [0]

    await eventually(given_back)


async def test_a_timeout_of_the_callers_is_one(transactions: Transactions) -> None:
    async def wait(_: UnitOfWork) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await transactions.run_operation(Operation(wait))


def test_a_task_that_its_loop_drops_just_ends() -> None:
    async def work() -> None:
        with contained():
            await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    coroutine = work()
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    coroutine.close()  # raises what it does not let through
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()


async def test_ctrl_c_is_meant_for_the_process() -> None:
    with contextlib.suppress(KeyboardInterrupt), contained():
        raise KeyboardInterrupt
