"""``ftgo dead-letters``: what could not be handled, and what is to become of it.

Works on the platform that ``ftgo up`` runs, and on any other by FTGO_<SERVICE>_DATABASE_URL. A redrive is an order,
left in the database: the service's own worker carries it out, with its own handlers, within some seconds.
"""

import json
import sys
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.dead_letters import UNRESOLVED
from ftgo_messaging.consumer.letter import DeadLetter, State, document
from ftgo_messaging.runtime.connection import Connection
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftgo_local.databases import in_transaction
from ftgo_local.services import SERVICES

app = typer.Typer(help="See messages that could not be handled; redrive or discard them.", no_args_is_help=True)

ServiceName = StrEnum("ServiceName", {name: name for name in SERVICES})  # type: ignore[misc]
Service = Annotated[ServiceName, typer.Argument(help="In whose database they are.")]
Ids = Annotated[list[int], typer.Argument(help="As `ftgo dead-letters list` shows them.")]
Offset = Annotated[int, typer.Option("--port-offset", envvar="FTGO_PORT_OFFSET", min=0, max=40000)]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]

_SHOWN = 20_000
"""Characters of a body, or of another value, that are shown to people; --json has all."""


@app.command(name="list")
def list_command(
    service: Service,
    offset: Offset = 0,
    state: Annotated[list[State] | None, typer.Option(help="Only these; without it, all that wait.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only those behind this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 100,
    as_json: Json = False,
) -> None:
    """Show the dead letters of a service, oldest first."""
    states: Collection[State] = state or UNRESOLVED

    async def read(connection: Connection) -> list[DeadLetter]:
        return await dead_letters.list_letters(connection, after=after, limit=limit, states=states)

    found = in_transaction(service.value, offset, read)
    if as_json:
        print(json.dumps([_summary(letter) for letter in found], indent=2))
    else:
        _show_list(found)


@app.command()
def show(service: Service, letter: Annotated[int, typer.Argument()], offset: Offset = 0, as_json: Json = False) -> None:
    """Show one dead letter whole: headers, body, error."""
    found = in_transaction(service.value, offset, lambda connection: dead_letters.get_letter(connection, letter))
    if as_json:
        print(json.dumps(document(found), indent=2))
        return
    whole = document(found)
    for name, value in _summary(found).items():
        print(f"{name:<11} {_plain(value) if value is not None else '-'}")
    print("\nheaders")
    for name, value in whole["headers"]:
        print(f"  {_plain(name)}: {_plain(value or '')}")
    body = (found.body or b"").decode(errors="backslashreplace")
    print(f"\nbody ({len(found.body or b'')} bytes)\n{_lines(body)}")
    print(f"\nerror\n{_lines(found.error)}")


@app.command()
def redrive(service: Service, letters: Ids, offset: Offset = 0) -> None:
    """Have them handled once more, exactly once, by the consumer that they failed in; what waits behind them follows.

    All of them or, when one cannot be, none."""

    async def order(connection: Connection) -> None:
        for letter in sorted(letters):
            await dead_letters.order_redrive(connection, letter)

    in_transaction(service.value, offset, order)
    print(f"The worker of {service.value} handles {_named(letters)} again.")


@app.command()
def discard(service: Service, letters: Ids, offset: Offset = 0) -> None:
    """Give them up. The rows stay for the record; what waits behind them follows.

    All of them or, when one cannot be, none."""

    async def give_up(connection: Connection) -> None:
        for letter in sorted(letters, reverse=True):  # the last of a key first: none of them is set to follow
            await dead_letters.discard(connection, letter)

    in_transaction(service.value, offset, give_up)
    print(f"Discarded {_named(letters)}.")


def _named(letters: Sequence[int]) -> str:
    return f"dead letter {', '.join(str(letter) for letter in sorted(letters))}"


def _summary(letter: DeadLetter) -> dict[str, Any]:
    whole = document(letter)
    return {name: whole[name] for name in whole if name not in {"headers", "body", "bodyBase64", "error"}} | {
        "error": letter.error.strip().splitlines()[-1] if letter.error.strip() else ""
    }


def _plain(value: object) -> str:
    """On one line, whatever it is: a record may hold line feeds, or sequences that a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)[:_SHOWN])


def _lines(text: str) -> str:
    return "\n".join(map(_plain, text[:_SHOWN].split("\n")))


def _show_list(found: Sequence[DeadLetter]) -> None:
    """A table on a terminal; elsewhere one line for each letter, its fields separated by tabs, without a heading."""
    names = ("id", "state", "attempts", "consumer", "type", "key", "failedAt", "error")
    rows = [[_plain(d[name]) if d[name] is not None else "-" for name in names] for d in map(_summary, found)]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=None, pad_edge=False)
    for heading in names:
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for row in rows:
        table.add_row(*map(Text, row))  # not markup: "[/]" is a key like any other
    Console().print(table if rows else "No dead letters.")
