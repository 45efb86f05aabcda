"""``ftgo saga``: what an operator sees of the sagas of Order, and does about those that hang.

Works on the platform that ``ftgo up`` runs, and on any other by FTGO_ORDER_DATABASE_URL. What it does is written as the
orchestrator writes it: instance and outbox row in one transaction, under the lock of the instance. A relay sends it.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from ftgo_messaging import Operation, Orchestrator, Transactions, UnitOfWork
from ftgo_messaging.sagas import timeouts
from ftgo_messaging.sagas.instance import SagaInstance
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ftgo_local.databases import database_url, sentences

T = TypeVar("T")
Body = Callable[[Orchestrator, UnitOfWork], Awaitable[T]]

app = typer.Typer(help="See the sagas of Order, and help those that hang.", no_args_is_help=True)

State = StrEnum("State", {s: s for s in ("RUNNING", "COMPENSATING", "COMPLETED", "COMPENSATED", "STUCK")})  # type: ignore[misc]
Offset = Annotated[int, typer.Option("--port-offset", envvar="FTGO_PORT_OFFSET", min=0, max=40000)]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def _saga_id(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise typer.BadParameter(f"{value!r} is no id of a saga; `ftgo saga list` shows them") from None


SagaId = Annotated[str, typer.Argument(help="The saga's id, as `ftgo saga list` shows it.", callback=_saga_id)]


@app.command(name="list")
def list_command(
    offset: Offset = 0,
    state: Annotated[State | None, typer.Option(help="Only these; without it, all that have not ended.")] = None,
    type: Annotated[str | None, typer.Option("--type", help="CreateOrder, CancelOrder or ReviseOrder.")] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those whose time is over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="At most so many, the most overdue first.")] = 100,
    as_json: Json = False,
) -> None:
    """Show the sagas that have not ended, or those in a state."""
    ended = state is not None and state.value in {"COMPLETED", "COMPENSATED"}
    conditions = ["finished" if ended else "NOT finished"]
    values: dict[str, Any] = {"limit": limit}
    if state is not None and state.value != "STUCK":
        conditions.append("state = :state")
        values["state"] = state.value
    if type is not None:
        conditions.append("(type = :type OR type LIKE '%.' || :type)")
        values["type"] = type
    if overdue:
        conditions.append("deadline < now()")
    chosen = text(
        f"SELECT saga_id FROM saga_instances WHERE {' AND '.join(conditions)} "  # noqa: S608 - our own words
        "ORDER BY deadline LIMIT :limit"
    )

    async def read(orchestrator: Orchestrator, uow: UnitOfWork) -> list[dict[str, Any]]:
        ids = [str(row[0]) for row in await uow.execute(chosen, values)]
        found = [_document(orchestrator, instance) for instance in await _read(orchestrator, ids, uow)]
        return [d for d in found if state is None or state.value != "STUCK" or d["stuck"]]

    found = _run(offset, read)
    if as_json:
        print(json.dumps([{name: d[name] for name in d if name != "history"} for d in found], indent=2))
    else:
        _show_list(found)


@app.command()
def show(saga_id: SagaId, offset: Offset = 0, as_json: Json = False) -> None:
    """Show one saga: where it stands, what it knows, and the history of its steps."""

    async def read(orchestrator: Orchestrator, uow: UnitOfWork) -> dict[str, Any]:
        for instance in await _read(orchestrator, [saga_id], uow):
            return _document(orchestrator, instance)
        raise timeouts.SagaNotFound(f"There is no saga {saga_id}.")

    found = _run(offset, read)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name in ("saga", "type", "state", "step", "attempts", "due", "stuck", "data"):
        value = found[name]
        print(f"{name:<9} {json.dumps(value) if name == 'data' else value}")
    print()
    for entry in found["history"]:
        print(f"{entry['at']}  {entry['step']:<22} {entry['what']}")


@app.command()
def retry(
    saga_id: SagaId,
    offset: Offset = 0,
    new_id: Annotated[
        bool, typer.Option("--new-id", help="As a new message: when the answer to the old one was lost.")
    ] = False,
) -> None:
    """Send the awaited command again, now. A participant that has handled it drops the repetition."""
    _run(offset, lambda orchestrator, uow: timeouts.retry(orchestrator, saga_id, uow, new_id=new_id))
    print(f"The saga {saga_id} asks again.")


@app.command()
def compensate(saga_id: SagaId, offset: Offset = 0) -> None:
    """Turn back a saga that is before its pivot. After the pivot this is refused."""
    _run(offset, lambda orchestrator, uow: timeouts.compensate(orchestrator, saga_id, uow))
    print(f"The saga {saga_id} turns back.")


async def _read(orchestrator: Orchestrator, ids: Sequence[str], uow: UnitOfWork) -> list[SagaInstance]:
    """Without locks: whoever looks must not stop what moves."""
    unlocked = replace(orchestrator.instances, lock=False)
    await uow.load((unlocked, saga_id) for saga_id in ids)
    return [instance for saga_id in ids if (instance := uow.peek(unlocked, saga_id)) is not None]


def _document(orchestrator: Orchestrator, instance: SagaInstance) -> dict[str, Any]:
    return {
        "saga": instance.saga_id,
        "type": instance.type,
        "definitionVersion": instance.definition_version,
        "state": instance.state.value,
        "step": instance.step,
        "awaitedCommand": instance.awaited_command,
        "attempts": instance.attempts,
        "dueInSeconds": None if instance.state.final else round(instance.due_in, 1),
        "due": _due(instance),
        "stuck": orchestrator.is_stuck(instance),
        "data": json.loads(instance.data),
        "history": [{"step": step, "what": what, "at": at} for step, what, at in instance.history],
    }


def _due(instance: SagaInstance) -> str:
    if instance.state.final:
        return "-"
    return f"in {instance.due_in:.0f} s" if instance.due_in > 0 else f"{-instance.due_in:.0f} s ago"


def _show_list(found: Sequence[dict[str, Any]]) -> None:
    """A table on a terminal; elsewhere one line for each saga, its fields separated by tabs, without a heading."""
    names = ("saga", "type", "state", "step", "attempts", "due")
    rows = [[str(d[n]) for n in names] + ["STUCK" if d["stuck"] else ""] for d in found]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=None, pad_edge=False)
    for heading in (*names, ""):
        table.add_column(heading, overflow="fold", no_wrap=heading == "saga")
    for row in rows:
        table.add_row(*row)
    Console().print(table if rows else "No sagas of this kind.")


def _run(offset: int, body: Body[T]) -> T:
    """Run ``body`` in one transaction on the database of Order. Errors end the command with a sentence."""
    from ftgo_order.sagas import ORCHESTRATOR  # costs half a second, and no other command needs it

    async def run() -> T:
        url = database_url("order", offset).replace("postgresql:", "postgresql+asyncpg:", 1)
        engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": 5})
        try:
            return await Transactions(engine, "order").run_operation(Operation(lambda uow: body(ORCHESTRATOR, uow)))
        finally:
            await engine.dispose()

    with sentences("order"):
        return asyncio.run(run())
