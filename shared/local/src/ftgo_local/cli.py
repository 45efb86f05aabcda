"""The ``ftgo`` command line.

Exit codes: 0 all is well, 1 something failed, 2 wrong usage, 3 already running, or not running where it should be.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ftgo_local import doctor as diagnosis
from ftgo_local.child import last_lines
from ftgo_local.console import failure_lines, for_stdout
from ftgo_local.errors import AlreadyRunningError, NotRunningError, PlatformError
from ftgo_local.launch import change, down, supervise, supervise_in_background
from ftgo_local.ports import chosen_ports
from ftgo_local.progress import Progress, failure
from ftgo_local.services import is_ready_now
from ftgo_local.state import StateDirectory, state_directory
from ftgo_local.status import snapshot

app = typer.Typer(
    help="FTGO on this machine: four services, a real PostgreSQL and a real Kafka, without Docker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Offset = Annotated[
    int,
    typer.Option("--port-offset", envvar="FTGO_PORT_OFFSET", min=0, max=40000, help="Another copy: ports moved by N."),
]


class Unit(StrEnum):
    order = "order"
    consumer = "consumer"
    kitchen = "kitchen"
    accounting = "accounting"
    kafka = "kafka"
    postgres = "postgres"


class Log(StrEnum):
    order = "order"
    consumer = "consumer"
    kitchen = "kitchen"
    accounting = "accounting"
    kafka = "kafka"
    postgres = "postgres"
    ftgo = "ftgo"


@contextmanager
def _errors(*, told: bool = False) -> Iterator[None]:
    """Errors of the platform as sentences and exit codes; never a stack trace."""
    try:
        yield
    except PlatformError as error:
        of_two = isinstance(error, AlreadyRunningError | NotRunningError)
        if not told or of_two or error.log:
            print("\n".join(failure_lines(failure("", error))), file=sys.stderr)
        raise typer.Exit(3 if of_two else 1) from None


@app.command()
def up(
    offset: Offset = 0,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is up, and leave it running.")] = False,
    quiet: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start everything and wait until it is ready. Ctrl-C stops it in order."""
    directory = StateDirectory(state_directory(offset))
    with _errors(told=True):
        if detach:
            supervise_in_background(directory, offset, for_stdout(offset, detached=True))
        else:
            supervise(directory, chosen_ports(offset), *([] if quiet else [for_stdout(offset)]))
