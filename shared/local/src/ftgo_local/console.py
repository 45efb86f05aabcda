"""How a start looks: a live list on a terminal, plain lines anywhere else."""

import json
import os
import re
import shlex
import shutil
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ftgo_local.progress import Event, Listener


def command() -> str:
    """``ftgo`` as this user can type it."""
    if shutil.which("ftgo"):
        return "ftgo"
    python = Path(sys.executable)
    path = python.with_name("ftgo")
    # The first line of that script quotes the path for a shell, in double quotes.
    if path.exists() and not re.search(r'[$`"\\]', str(path)):
        return shlex.quote(os.path.relpath(path))
    return f"{shlex.quote(os.path.relpath(python))} -m ftgo_local"


def order_example(url: str, seed: dict[str, dict[str, str]]) -> str:
    """A curl command that orders food for the good consumer, delivered in an hour."""
    body = {
        "consumerId": seed["consumers"]["good"],
        "restaurantId": seed["restaurants"]["trattoria"],
        "deliveryTime": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "deliveryAddress": {"street1": "9 Hill Lane", "city": "Oakland", "state": "CA", "zip": "94612"},
        "lineItems": [{"menuItemId": "1", "quantity": 2}, {"menuItemId": "3", "quantity": 1}],
    }
    return f"curl -i {url}/orders -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def farewell(event: Event, offset: int) -> list[str]:
    """What to look at and what to do next, once all is up."""
    urls, seed = event.details["urls"], event.details.get("seed")
    lines = [f"Everything is up after {event.seconds:.1f} s.", ""]
    lines += [f"  {name:<11} {url}/docs" for name, url in urls.items()]
    if seed and "order" in urls:
        lines += ["", "Order food:", f"  {order_example(urls['order'], seed)}"]
    copy = f" --port-offset {offset}" if offset else ""
    lines += [
        "",
        "Then:",
        f"  {command()} status{copy}      what runs",
        "  make demo        crashes, and nothing is lost",
    ]
    return lines


def failure_lines(event: Event) -> list[str]:
    """The failed step, its cause, the end of its log, and a cure."""
    lines = [f"{event.step}: {event.text}" if event.step else event.text]
    if event.log_lines:
        lines += [f"The last lines of {event.log}:", *(f"  | {line}" for line in event.log_lines)]
    if event.cure:
        lines += [f"What to do: {event.cure}"]
    return lines


def plain(out: IO[str], offset: int = 0) -> Listener:
    """One line per event, with the time of day. Steps appear when they are done."""

    def write(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=out, flush=True)

    def listen(event: Event) -> None:
        match event.kind:
            case "done":
                write(f"{event.step}: {event.text or 'done'} ({event.seconds:.1f} s)")
            case "failed":
                write(f"FAILED {event.step} ({event.seconds:.1f} s)")
                print("\n".join(failure_lines(event)), file=out, flush=True)
            case "note":
                write(event.text)
            case "ready":
                print("\n".join(farewell(event, offset)), file=out, flush=True)
            case "stopped":
                write("Everything is stopped.")

    return listen


def to_file(path: Path) -> Listener:
    """``plain`` at the end of a file. Opened for each event: what a full disk refused is not tried again later."""

    def listen(event: Event) -> None:
        with path.open("a") as out:
            plain(out)(event)

    return listen


class Terminal:
    """A listener for a terminal: running steps spin, done ones stay as a line with their time."""

    def __init__(self, console: Console, offset: int = 0, *, detached: bool = False) -> None:
        self._console = console
        self._offset = offset
        self._detached = detached
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bars = Bars(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        match event.kind:
            case "started":
                self._bars.start()
                self._tasks[event.step] = self._bars.add_task(event.step, total=None)
            case "done":
                self._finish(event.step, "[green]✔[/]", event)
            case "failed":
                self._finish(event.step, "[red]✘[/]", event)
                self._print(f"[red]{escape(chr(10).join(failure_lines(event)))}[/]")
            case "note":
                self._print(f"[yellow]![/] {escape(event.text)}")
            case "ready":
                self._bars.stop()
                self._print("\n" + escape("\n".join(farewell(event, self._offset))))
                stop = f"`{command()} down` stops everything." if self._detached else "Ctrl-C stops everything."
                self._print(f"\n[dim]{stop}[/]")
            case "stopped":
                self._bars.stop()
                self._print("Everything is stopped. The data stay for the next start.")

    def _finish(self, step: str, mark: str, event: Event) -> None:
        if (task := self._tasks.pop(step, None)) is not None:
            self._bars.remove_task(task)
        if not self._tasks:
            self._bars.stop()
        self._print(f"{mark} {step:<16} {event.seconds:5.1f} s  [dim]{escape(event.text)}[/]")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def for_stdout(offset: int = 0, *, detached: bool = False) -> Listener:
    console = Console()
    return Terminal(console, offset, detached=detached) if console.is_terminal else plain(sys.stdout, offset)
