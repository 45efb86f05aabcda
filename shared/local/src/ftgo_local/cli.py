"""The ``ftgo`` command line.

Exit codes: 0 all is well, 1 something failed, 2 wrong usage, 3 already running, or not running where it should be.
"""

import json
import os
import re
import sys
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ftgo_local import broker_command, dead_letters, sagas
from ftgo_local import demo as tour
from ftgo_local import doctor as diagnosis
from ftgo_local.broker_choice import choose
from ftgo_local.brokers.kinds import KINDS, shown
from ftgo_local.child import last_lines
from ftgo_local.console import for_stdout, plain
from ftgo_local.environment import settle
from ftgo_local.errors import NotRunningError
from ftgo_local.launch import change, down, kill_unit, supervise, supervise_in_background
from ftgo_local.ports import chosen_ports
from ftgo_local.progress import Progress
from ftgo_local.sentences import sentences
from ftgo_local.services import SERVICES
from ftgo_local.state import POSTGRES, StateDirectory, state_directory
from ftgo_local.status import snapshot

app = typer.Typer(
    help="FTGO on this machine: four services, a real PostgreSQL and a real broker, without Docker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(sagas.app, name="saga")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(broker_command.app, name="broker")

UNITS = (*SERVICES, POSTGRES, *(kind.name for kind in KINDS.values() if kind.runs))
Unit = StrEnum("Unit", {name: name for name in UNITS})  # type: ignore[misc]
Log = StrEnum("Log", {name: name for name in (*UNITS, "ftgo")})  # type: ignore[misc]
Broker = StrEnum("Broker", {name: name for name in KINDS})  # type: ignore[misc]

BrokerName = Annotated[
    Broker | None,
    typer.Option(
        "--broker",
        envvar="FTGO_BROKER",
        help="Without it: that of the last start, kafka the first time.",
        show_choices=True,
    ),
]
Offset = Annotated[
    int,
    typer.Option("--port-offset", envvar="FTGO_PORT_OFFSET", min=0, max=40000, help="Another copy: ports moved by N."),
]


def _directory(offset: int) -> StateDirectory:
    return StateDirectory(state_directory(offset))


@app.callback()
def own_environment(context: typer.Context) -> None:
    os.umask(0o077)
    # Where an address of a database is given, it is another server, and what the shell says of it counts.
    elsewhere = any(re.fullmatch(r"FTGO_\w+_DATABASE_URL", name) for name in os.environ)
    context.obj = [] if elsewhere else settle(os.environ)


@app.command()
def up(
    offset: Offset = 0,
    broker: BrokerName = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is up; leave it running.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", hidden=True)] = False,
) -> None:
    """Start everything and wait until it is ready. Ctrl-C stops it in order.

    FTGO_BROKER_URL names a broker that runs elsewhere; none is started then.
    """
    directory, asked = _directory(offset), broker.value if broker else None
    with sentences():
        choice = choose(asked, directory, os.environ)
        if detach:
            supervise_in_background(directory, offset, for_stdout(offset, detached=True), asked)
        else:
            ports = chosen_ports(offset, broker=choice.own, beside=choice.leaves)
            supervise(directory, ports, *([] if quiet else [for_stdout(offset)]), broker=choice)


@app.command(name="down")
def down_command(offset: Offset = 0) -> None:
    """Stop everything, wherever it was started. The data stay."""
    with sentences():
        ran = down(_directory(offset), Progress(plain(sys.stdout)))
    print("Everything is stopped. The data stay for the next start." if ran else "Nothing is running.")


@app.command()
def reset(
    offset: Offset = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop everything and delete its data."""
    directory = _directory(offset)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete all orders, consumers, restaurants and messages in {directory.path}?", abort=True)
    with sentences():
        down(directory, Progress(plain(sys.stdout)))
        with directory.lock():
            directory.delete()
    print(f"{directory.path} is empty. The next start begins anew.")


@app.command()
def status(
    offset: Offset = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs. Holds passwords.")] = False,
) -> None:
    """Show what runs. Exit code 3 when nothing does."""
    with sentences():
        found = snapshot(_directory(offset))
        if found is None:
            raise NotRunningError("ftgo is not up.", "`ftgo up` starts it.")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "status", "pid", "started again", "address"):
        table.add_column(heading, no_wrap=True)
    for name, service in found["services"].items():
        text = "ready" if service["ready"] else "not ready" if service["status"] == "running" else service["status"]
        table.add_row(name, text, str(service["pid"] or "-"), str(service["restarts"]), service["url"])
    for name in filter(None, (found["broker"], found.get("beside"), POSTGRES)):
        unit = found[name]
        address = shown(unit["url"]) if "url" in unit else "passwords and ports: ftgo status --json"
        table.add_row(name, unit["status"], str(unit["pid"] or "-"), str(unit["restarts"]), address)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if found.get("beside"):
        console.print(broker_command.told(found))
    for name, service in found["services"].items():
        letters = Counter[str]()
        for counts in service["deadLetters"].values():
            letters.update(counts)
        if waiting := letters.total() - letters["parkedKeys"]:
            console.print(
                f"{name}: dead letters {waiting}, parked keys {letters['parkedKeys']}. "
                f"`ftgo dead-letters list {name}` shows them."
            )


@app.command()
def stop(service: Unit, offset: Offset = 0) -> None:
    """Stop one process; it stays stopped until it is started, or everything is."""
    with sentences():
        print(change(_directory(offset), service.value, run=False))


@app.command()
def start(service: Unit, offset: Offset = 0) -> None:
    """Start one process that was stopped, and wait until it is ready."""
    with sentences():
        print(change(_directory(offset), service.value, run=True))


@app.command()
def restart(service: Unit, offset: Offset = 0) -> None:
    """Stop one process, start it again, and wait until it is ready."""
    with sentences():
        print(change(_directory(offset), service.value, run=True, again=True))


@app.command()
def kill(service: Unit, offset: Offset = 0) -> None:
    """Kill one process, as in a crash (SIGKILL). It is started again at once."""
    with sentences():
        print(kill_unit(_directory(offset), service.value))


@app.command()
def logs(
    service: Log,
    offset: Offset = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of the past.")] = 50,
) -> None:
    """Show the log of one process; `ftgo` is the supervisor's own."""
    path = _directory(offset).logs / f"{service.value}.log"
    with sentences():
        if not path.exists():
            raise NotRunningError(f"There is no log of {service.value} yet.", "`ftgo up` starts everything.")
    end = path.stat().st_size
    for line in last_lines(path, lines):
        print(line)
    while follow:
        try:
            end = _print_from(path, end)
            time.sleep(0.2)
        except KeyboardInterrupt:
            return


def _print_from(path: Path, position: int) -> int:
    """Print what was appended; from the beginning when the file was set aside and begun anew. Returns the new end."""
    if path.stat().st_size < position:
        position = 0
    with path.open("rb") as file:
        file.seek(position)
        sys.stdout.write(file.read().decode(errors="replace"))
        sys.stdout.flush()
        return file.tell()


@app.command()
def demo(
    offset: Offset = 0,
    broker: BrokerName = None,
    scene: Annotated[list[int] | None, typer.Option("--scene", "-s", help="Only this one; may be repeated.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Wait for Enter before each scene.")] = False,
) -> None:
    """Show six scenes: orders, refusals, outages, duplicates. Starts everything when nothing runs."""
    with sentences():
        tour.demo(_directory(offset), offset, scene or (), broker=broker.value if broker else None, pause=pause)


@app.command()
def doctor(context: typer.Context, offset: Offset = 0, broker: BrokerName = None) -> None:
    """Examine this machine: Python, memory, disk, ports, brokers. Exit code 1 when something stands in the way."""
    with sentences():
        directory = _directory(offset)
        choice = choose(broker.value if broker else None, directory, os.environ)
        ports = chosen_ports(offset, broker=choice.own, beside=choice.leaves)
    findings = diagnosis.examine(
        directory.path, ports, broker=choice.own, running=directory.is_locked(), ignored=context.obj
    )
    for finding in findings:
        if finding.ok:
            print(f"ok    {finding.name}: {finding.fact}")
        else:
            print(f"FAIL  {finding.name}: {finding.cause}\n      What to do: {finding.cure}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
