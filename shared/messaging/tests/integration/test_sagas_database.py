"""Sagas on a real PostgreSQL: deadlines by its clock, several reconcilers, races, crashes, new definitions."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.replies import Reply, Success
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.connection import begin
from ftgo_messaging.sagas.definition import Saga, SagaStep, StepKind
from ftgo_messaging.sagas.instance import SagaInstance, SagaState, saga_instances, saga_instances_table
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.sagas.recovery import STUCK, count_stuck, reconcile, reconcile_forever
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transports.port import Record
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

METADATA = MetaData()
messaging_tables(METADATA)
INSTANCES = saga_instances(saga_instances_table(METADATA))
REPLIES = Channel("flight.replies", Kind.REPLY)
COMMANDS = Channel("flight.commands", Kind.COMMAND, key=lambda c: c.flight)


class FlightCommand(Command[Success], frozen=True, kw_only=True):
    flight: str


def command(name: str) -> Callable[[Any], FlightCommand]:
    cls: Any = msgspec.defstruct(name, [], bases=(FlightCommand,), frozen=True, kw_only=True)
    COMMANDS.carries(f"flight.{name}", replies_to=(REPLIES,))(cls)
    return lambda data: cls(flight=data.flight)


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    flight: str


class FlightWithMeal(Flight, frozen=True, kw_only=True):
    """The data of version 2."""

    meal: str


STEPS = [
    SagaStep[Any](name="seat", command=command("TakeSeat"), compensation=command("FreeSeat")),
    SagaStep[Any](name="pay", kind=StepKind.PIVOT, command=command("PayFlight")),
    SagaStep[Any](name="print", kind=StepKind.RETRIABLE, command=command("PrintTicket")),
]
V1 = Saga[Any]("flight", 1, Flight, REPLIES, STEPS)
MEAL = SagaStep[Any](name="meal", command=command("OrderMeal"), compensation=command("DropMeal"))
V2 = Saga[Any]("flight", 2, FlightWithMeal, REPLIES, [STEPS[0], MEAL, *STEPS[1:]])


def transactions_on(dsn: str) -> Transactions:
    return Transactions(create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), pool_size=10), "test")


@pytest.fixture
async def dsn(postgres: Postgres) -> str:
    return (await postgres.create_service_databases(["sagas"]))["sagas"]


@pytest.fixture
async def transactions(dsn: str) -> AsyncIterator[Transactions]:
    transactions = transactions_on(dsn)
    await create_tables(transactions)
    yield transactions
    await transactions.engine.dispose()


async def create_tables(transactions: Transactions) -> None:
    async with transactions.engine.begin() as connection:
        await connection.run_sync(METADATA.drop_all)
        await connection.run_sync(METADATA.create_all)


async def run(transactions: Transactions, body: Callable[..., Awaitable[Any]]) -> Any:
    return await transactions.run_operation(Operation(body))


async def start(
    transactions: Transactions, orchestrator: Orchestrator, number: int = 1, saga: Saga[Any] = V1
) -> list[str]:
    data = Flight(flight="f") if saga is V1 else FlightWithMeal(flight="f", meal="soup")
    return [await run(transactions, lambda uow: orchestrator.start(saga, data, uow)) for _ in range(number)]


async def instance(transactions: Transactions, saga_id: str) -> SagaInstance:
    return await run(transactions, lambda uow: uow.find(INSTANCES, saga_id))


async def sql(transactions: Transactions, statement: str, **values: Any) -> list[Any]:
    async with begin(transactions.engine) as connection:  # which replaces what a crash of the server has closed
        return await connection.execute(text(statement), values)


async def overdue(transactions: Transactions, more: str = "") -> None:
    await sql(transactions, f"UPDATE saga_instances SET deadline = now() - interval '1 hour'{more}")


async def asked(transactions: Transactions) -> Counter[tuple[str, str]]:
    """How often each saga has asked what: (saga id, type) of all rows of the outbox."""
    rows = await sql(transactions, "SELECT headers->>'sagaid', headers->>'type' FROM outbox")
    return Counter((row[0], row[1].removeprefix("flight.")) for row in rows)


def answer(instance: SagaInstance, reply: Reply | None = None) -> Record:
    """A reply to the awaited command, as it comes from Kafka."""
    assert instance.awaited_command
    to = m.Message(instance.awaited_command, "", "", {m.REPLY_CHANNEL: REPLIES.name, m.SAGA_ID: instance.saga_id}, b"")
    message = writer.reply_message(reply or Success(), new_id(), "participant", to)
    assert message is not None
    headers = [(name, value.encode()) for name, value in message.headers.items()]
    return Record(REPLIES.name, message.key.encode(), headers, message.body, f"{REPLIES.name}/0@0")


async def process(transactions: Transactions, orchestrator: Orchestrator, *replies: Record) -> None:
    await BatchProcessor(orchestrator.handlers("flights", [Success]), transactions).process(replies)


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)])
async def test_deadlines_are_the_databases_business(transactions: Transactions, skew: timedelta) -> None:
    """The clock of the process is an hour slow or fast: nothing is due too early or too late."""
    orchestrator = Orchestrator(INSTANCES, [V1], now=lambda: datetime.now(UTC) + skew)
    (saga_id,) = await start(transactions, orchestrator)
    ((left,),) = await sql(transactions, "SELECT EXTRACT(EPOCH FROM deadline - now()) FROM saga_instances")
    assert 20 < left <= 30
    assert await reconcile(orchestrator, transactions) == 0
    await overdue(transactions)
    assert await reconcile(orchestrator, transactions) == 1
    assert 50 < (await instance(transactions, saga_id)).due_in <= 60


async def test_what_does_not_ask_leaves_the_deadline_where_it_is(transactions: Transactions) -> None:
    """Otherwise a stream of foreign replies would put the reminder off for ever."""
    orchestrator = Orchestrator(INSTANCES, [V1])
    (saga_id,) = await start(transactions, orchestrator)
    before = await sql(transactions, "SELECT deadline FROM saga_instances")
    foreign = replace(await instance(transactions, saga_id), awaited_command=new_id())
    await process(transactions, orchestrator, answer(foreign))
    assert (await instance(transactions, saga_id)).history[-1][1] == "dropped ftgo.messaging.Success"
    after = await sql(transactions, "SELECT deadline FROM saga_instances")
    assert abs(after[0][0] - before[0][0]) < timedelta(milliseconds=1)


async def test_several_reconcilers_remind_each_saga_once(dsn: str, transactions: Transactions) -> None:
    """Two processes of a service, one of them draining: both run the loop, one of them asks."""
    orchestrators = [Orchestrator(INSTANCES, [V1]) for _ in range(3)]
    engines = [transactions_on(dsn) for _ in range(3)]
    sagas = await start(transactions, orchestrators[0], 40)
    await overdue(transactions)
    done = await asyncio.gather(*(reconcile(o, t) for o, t in zip(orchestrators, engines, strict=True)))
    await asyncio.gather(*(t.engine.dispose() for t in engines))
    assert sum(done) == 40
    assert await asked(transactions) == {(saga_id, "TakeSeat"): 2 for saga_id in sagas}
    rows = await sql(transactions, "SELECT count(*), count(DISTINCT message_id) FROM outbox")
    assert tuple(rows[0]) == (80, 40)


async def test_a_saga_that_somebody_holds_delays_no_other(transactions: Transactions) -> None:
    orchestrator = Orchestrator(INSTANCES, [V1])
    held, *others = await start(transactions, orchestrator, 5)
    await overdue(transactions)
    async with transactions.engine.begin() as paused:
        await paused.execute(text("SELECT 1 FROM saga_instances WHERE saga_id = :id FOR UPDATE"), {"id": held})
        async with asyncio.timeout(5):
            assert await reconcile(orchestrator, transactions) == len(others)
    assert await reconcile(orchestrator, transactions) == 1


async def test_a_saga_without_its_definition_delays_no_other_and_is_seen(transactions: Transactions) -> None:
    orchestrator = Orchestrator(INSTANCES, [V1])
    lost, *others = await start(transactions, orchestrator, 3)
    await overdue(transactions)
    await sql(
        transactions,
        "UPDATE saga_instances SET definition_version = 99, attempts = 2, deadline = now() - interval '2 hours' "
        "WHERE saga_id = :id",
        id=lost,
    )
    assert await reconcile(orchestrator, transactions, limit=1) == 0  # it is the first of the queue
    assert await reconcile(orchestrator, transactions, limit=1) == 1  # and then the last
    assert await reconcile(orchestrator, transactions) == len(others) - 1
    assert await count_stuck(orchestrator, transactions) == 1
    assert STUCK.labels("flight", "RUNNING")._value.get() == 1


async def test_a_compensation_that_is_never_answered_is_seen(transactions: Transactions) -> None:
    orchestrator = Orchestrator(INSTANCES, [V1])
    (saga_id,) = await start(transactions, orchestrator)
    await overdue(transactions, ", attempts = 6")
    assert await reconcile(orchestrator, transactions) == 1
    assert (await instance(transactions, saga_id)).state is SagaState.COMPENSATING
    assert await count_stuck(orchestrator, transactions) == 0
    await overdue(transactions, ", attempts = 5")
    await reconcile(orchestrator, transactions)
    assert await count_stuck(orchestrator, transactions) == 1
    assert STUCK.labels("flight", "COMPENSATING")._value.get() == 1
    await process(transactions, orchestrator, answer(await instance(transactions, saga_id)))
    assert await count_stuck(orchestrator, transactions) == 0


async def test_the_loop_reminds_and_counts(transactions: Transactions) -> None:
    orchestrator = Orchestrator(INSTANCES, [V1])
    (saga_id,) = await start(transactions, orchestrator)
    await sql(transactions, "UPDATE saga_instances SET definition_version = 99, attempts = 2")
    STUCK.labels("flight", "RUNNING").set(0)
    (other,) = await start(transactions, orchestrator)
    await sql(transactions, "UPDATE saga_instances SET deadline = now() - interval '1 hour' WHERE attempts = 1")
    loop = asyncio.create_task(reconcile_forever(orchestrator, transactions, every=0.02))
    try:

        async def both() -> None:
            assert await asked(transactions) == {(saga_id, "TakeSeat"): 1, (other, "TakeSeat"): 2}
            assert STUCK.labels("flight", "RUNNING")._value.get() == 1

        await eventually(both)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_a_time_out_and_the_answer_at_the_same_moment(transactions: Transactions) -> None:
    """Two hundred times: one of the two comes first, and the saga goes on or back, never both."""
    orchestrator = Orchestrator(INSTANCES, [V1])
    sagas = await start(transactions, orchestrator, 200)
    await overdue(transactions, ", attempts = 6")
    waiting = [await instance(transactions, saga_id) for saga_id in sagas]

    async def answers() -> None:
        for saga in reversed(waiting):  # from the other end: they meet in the middle
            await process(transactions, orchestrator, answer(saga))

    async def timeouts() -> None:
        for _ in range(2):
            await reconcile(orchestrator, transactions)

    await asyncio.gather(answers(), timeouts())
    counted = await asked(transactions)
    on = {saga for saga, what in counted if what == "PayFlight"}
    back = {saga for saga, what in counted if what == "FreeSeat"}
    assert on | back == set(sagas)
    assert not on & back
    assert on
    assert back
    for saga_id in sagas:
        found = await instance(transactions, saga_id)
        assert found.state is (SagaState.RUNNING if saga_id in on else SagaState.COMPENSATING)
        dropped = [what for _, what, _ in found.history if what.startswith("dropped")]
        assert len(dropped) == (saga_id in back)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """One that PostgreSQL's own user can enter."""
    for path in [tmp_path, *list(tmp_path.parents)[:2]]:
        path.chmod(0o755)
    return tmp_path


async def test_a_crash_of_the_database_in_the_middle_of_the_reconciler(open_folder: Path) -> None:
    """A PostgreSQL of its own, stopped without a checkpoint while sagas are being reminded, and started again."""
    postgres = Postgres(open_folder / "postgres", free_port())
    await postgres.start()
    transactions = transactions_on((await postgres.create_service_databases(["crash"]))["crash"])
    loop: asyncio.Task[None] | None = None
    try:
        await create_tables(transactions)
        orchestrator = Orchestrator(INSTANCES, [V1])
        sagas = await start(transactions, orchestrator, 300)
        await overdue(transactions)
        loop = asyncio.create_task(reconcile_forever(orchestrator, transactions, every=0.2))

        async def begun() -> None:
            assert (await sql(transactions, "SELECT count(*) FROM outbox"))[0][0] > 330

        await eventually(begun, within=30, every=0.001)
        await asyncio.to_thread(postgres.stop, immediate=True)
        await postgres.start()
        ((reminded,),) = await sql(transactions, "SELECT count(*) FROM saga_instances WHERE attempts > 1")
        assert reminded < 300, "the crash came too late to show anything"

        async def over() -> None:
            assert await sql(transactions, "SELECT 1 FROM saga_instances WHERE deadline < now()") == []

        await eventually(over, within=30)
        attempts = await sql(transactions, "SELECT saga_id, attempts FROM saga_instances")
        assert {str(row[0]) for row in attempts} == set(sagas)
        # What the instance says and what went out are one transaction: no reminder without its note, no note without.
        assert await asked(transactions) == {(str(row[0]), "TakeSeat"): row[1] for row in attempts}
    finally:
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        await transactions.engine.dispose()
        await asyncio.to_thread(postgres.stop)


async def test_running_sagas_end_by_their_own_definition_after_a_deploy(transactions: Transactions) -> None:
    """The rows of the old release, in every step it has, and the release that has put a step in between."""
    old = Orchestrator(INSTANCES, [V1])
    sagas = await start(transactions, old, 3)
    for steps, saga_id in enumerate(sagas):
        for _ in range(steps):
            await process(transactions, old, answer(await instance(transactions, saga_id)))
    new = Orchestrator(INSTANCES, [V1, V2])
    sagas += await start(transactions, new, 1, V2)
    for saga_id in sagas:
        while not (found := await instance(transactions, saga_id)).state.final:
            await process(transactions, new, answer(found))
        assert found.state is SagaState.COMPLETED
    counted = await asked(transactions)
    assert [(saga_id, "OrderMeal") in counted for saga_id in sagas] == [False, False, False, True]
    assert all((saga_id, "PrintTicket") in counted for saga_id in sagas)
    versions = await sql(transactions, "SELECT data FROM saga_instances WHERE definition_version = 2")
    assert [row[0] if isinstance(row[0], dict) else json.loads(row[0]) for row in versions] == [
        {"flight": "f", "meal": "soup"}
    ]
