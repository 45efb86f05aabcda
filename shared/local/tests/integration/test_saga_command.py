"""``ftgo saga`` on the database of Order: what it shows, what it does, what it refuses."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from ftgo_contracts.money import Money
from ftgo_local.cli import app
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_order.sagas import ORCHESTRATOR
from ftgo_order.sagas.cancel_order import CANCEL_ORDER
from ftgo_order.sagas.create_order import CREATE_ORDER, CreateOrderData
from ftgo_order.sagas.orchestration import OrderSagaData
from ftgo_service_kit.migrations import run_migrations
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner, Result

IDS = {"order_id": new_id(), "consumer_id": new_id(), "restaurant_id": new_id()}
Ftgo = Callable[..., Awaitable[Result]]


@pytest.fixture(scope="module")
async def dsn(postgres: Postgres) -> str:
    dsn = (await postgres.create_service_databases(["saga_command"]))["saga_command"]
    await asyncio.to_thread(run_migrations, "ftgo_order", dsn)
    return dsn


@pytest.fixture
async def transactions(dsn: str) -> AsyncIterator[Transactions]:
    transactions = Transactions(create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:")), "order")
    yield transactions
    await sql(transactions, "TRUNCATE saga_instances, outbox")
    await transactions.engine.dispose()


@pytest.fixture
def ftgo(dsn: str) -> Ftgo:
    async def run(*arguments: str, url: str = dsn) -> Result:
        command = ["saga", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env={"FTGO_ORDER_DATABASE_URL": url})

    return run


async def sql(transactions: Transactions, statement: str) -> list[Any]:
    async with transactions.engine.begin() as connection:
        result = await connection.execute(text(statement))
        return list(result) if result.returns_rows else []


@pytest.fixture
async def sagas(transactions: Transactions) -> tuple[str, str]:
    """A CreateOrder that is overdue, and a CancelOrder that awaits its pivot and has been asking for long."""
    create = CreateOrderData(**IDS, order_total=Money.of("9.00"), line_items=())
    cancel = OrderSagaData(**IDS)
    ids = (
        await transactions.run_operation(Operation(lambda uow: ORCHESTRATOR.start(CREATE_ORDER, create, uow))),
        await transactions.run_operation(Operation(lambda uow: ORCHESTRATOR.start(CANCEL_ORDER, cancel, uow))),
    )
    await sql(transactions, f"UPDATE saga_instances SET deadline = now() - interval '1 h' WHERE saga_id = '{ids[0]}'")
    await sql(
        transactions,
        f"UPDATE saga_instances SET step = 'reverse authorization', attempts = 9 WHERE saga_id = '{ids[1]}'",
    )
    return ids


async def test_the_list_shows_what_has_not_ended_the_most_overdue_first(ftgo: Ftgo, sagas: tuple[str, str]) -> None:
    create, cancel = sagas
    plain = (await ftgo("list")).stdout.splitlines()
    assert [line.split("\t")[:5] for line in plain] == [
        [create, "ftgo.order.CreateOrder", "RUNNING", "verify consumer", "1"],
        [cancel, "ftgo.order.CancelOrder", "RUNNING", "reverse authorization", "9"],
    ]
    assert plain[0].split("\t")[5:] == ["3600 s ago", ""]
    assert plain[1].endswith("\tSTUCK")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--overdue"], [0]),
        (["--type", "CancelOrder"], [1]),
        (["--type", "ftgo.order.CreateOrder"], [0]),
        (["--type", "Order"], []),
        (["--state", "RUNNING"], [0, 1]),
        (["--state", "STUCK"], [1]),
        (["--state", "COMPENSATING"], []),
        (["--state", "COMPLETED"], []),
        (["--limit", "1"], [0]),
    ],
)
async def test_the_list_is_chosen_from(
    ftgo: Ftgo, sagas: tuple[str, str], options: list[str], shown: list[int]
) -> None:
    result = await ftgo("list", "--json", *options)
    assert result.exit_code == 0, result.output
    assert [found["saga"] for found in json.loads(result.stdout)] == [sagas[i] for i in shown]


async def test_show_prints_the_history(ftgo: Ftgo, sagas: tuple[str, str]) -> None:
    shown = (await ftgo("show", sagas[0])).stdout.splitlines()
    assert f"saga      {sagas[0]}" in shown
    assert shown[-1].endswith("verify consumer        asked VerifyConsumer")
    assert shown[-2].endswith("create order           done")
    document = json.loads((await ftgo("show", "--json", sagas[0])).stdout)
    assert document["data"]["orderTotal"] == "9.00"
    assert [entry["what"] for entry in document["history"]] == ["done", "asked VerifyConsumer"]


async def test_retry_sends_the_awaited_command_again(
    ftgo: Ftgo, sagas: tuple[str, str], transactions: Transactions
) -> None:
    assert (await ftgo("retry", sagas[0])).stdout == f"The saga {sagas[0]} asks again.\n"
    sent = f"SELECT message_id FROM outbox WHERE headers->>'sagaid' = '{sagas[0]}' ORDER BY position"
    first, again = [row[0] for row in await sql(transactions, sent)]
    assert again == first
    assert (await ftgo("retry", "--new-id", sagas[0])).exit_code == 0
    assert [row[0] == first for row in await sql(transactions, sent)] == [True, True, False]
    assert "retried by operator" in (await ftgo("show", sagas[0])).stdout


async def test_compensate_turns_back_before_the_pivot_only(
    ftgo: Ftgo, sagas: tuple[str, str], transactions: Transactions
) -> None:
    refused = await ftgo("compensate", sagas[1])
    assert refused.exit_code == 1
    assert "it cannot turn back any more; `retry` asks again" in refused.stderr
    await sql(transactions, f"UPDATE saga_instances SET step = 'create ticket' WHERE saga_id = '{sagas[0]}'")
    assert (await ftgo("compensate", sagas[0])).exit_code == 0
    document = json.loads((await ftgo("show", "--json", sagas[0])).stdout)
    assert (document["state"], document["step"]) == ("COMPENSATING", "create ticket")
    assert (document["data"]["reason"], document["data"]["service"]) == ("BY_OPERATOR", "kitchen")
    types = await sql(transactions, "SELECT headers->>'type' FROM outbox ORDER BY position DESC LIMIT 1")
    assert types[0][0] == "ftgo.kitchen.CancelCreateTicket"


async def test_sentences_instead_of_stack_traces(ftgo: Ftgo, dsn: str, sagas: tuple[str, str]) -> None:
    stranger = new_id()
    for command in ("show", "retry", "compensate"):
        unknown = await ftgo(command, stranger)
        assert (unknown.exit_code, unknown.stderr) == (1, f"There is no saga {stranger}.\n")
    assert (await ftgo("show", "42")).exit_code == 2
    nowhere = await ftgo("list", url="postgresql://nobody:nothing@127.0.0.1:1/order")
    assert nowhere.exit_code == 1
    assert nowhere.stderr.startswith("The database of order: ")
    assert "nothing" not in nowhere.stderr
    wrong = await ftgo("list", url="mysql://here")
    assert wrong.stderr.startswith("FTGO_ORDER_DATABASE_URL is no postgresql:// address.")
