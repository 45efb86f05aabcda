"""``ftgo broker``: which one is used; and the move to another while orders run."""

import os
import time
import uuid
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ftgo_local.broker_choice import remembered
from ftgo_local.brokers.kinds import DEFAULT, KINDS, shown
from ftgo_local.errors import NotRunningError, PlatformError
from ftgo_local.ports import BROKER_PORTS, chosen_ports
from ftgo_local.sentences import sentences
from ftgo_local.state import MoveState, PlatformState, StateDirectory, WantedBroker, state_directory
from ftgo_local.status import snapshot

app = typer.Typer(help="Tell which broker is used, or move to another one while everything runs.")

Name = StrEnum("Name", {name: name for name in KINDS})  # type: ignore[misc]
Offset = Annotated[int, typer.Option("--port-offset", envvar="FTGO_PORT_OFFSET", min=0, max=40000)]

LOOK_SECONDS = 0.1
TELL_SECONDS = 1.0


@app.callback(invoke_without_command=True)
def which(context: typer.Context, offset: Offset = 0) -> None:
    """Tell which broker is used, or move to another one while everything runs."""
    if context.invoked_subcommand is not None:
        return
    with sentences():
        directory = StateDirectory(state_directory(offset))
        found = snapshot(directory)
        print(told(found) if found else _told_of_the_next_start(directory))


def told(found: dict[str, Any]) -> str:
    """The broker of a document of ``ftgo status``, in sentences."""
    name, beside, move = found["broker"], found["beside"], found["move"]
    here = f"{_title(name)} at {shown(found[name]['url'])}"
    if not beside:
        return f"The broker is {here}."
    other = f"{_title(beside)} at {shown(found[beside]['url'])}"
    waits = f" It waits: {move['waits_for']}." if move and move["waits_for"] else ""
    if move and move["phase"] == "failed":
        waits = f" It stopped: {move['cause']} `ftgo broker move {name}` goes on."
    if move and move["phase"] == "preparing":
        return f"The broker is {here}; {other} is about to follow it.{waits}"
    return f"A move to {here} is under way: services send there, and read {other} as well.{waits}"


def _told_of_the_next_start(directory: StateDirectory) -> str:
    choice = remembered(directory)
    if choice is None:
        return f"Nothing runs, and nothing has. `ftgo up` will start {_title(DEFAULT)}, or another with --broker."
    if choice.leaves:
        return f"Nothing runs. `ftgo up` goes on with the move from {_title(choice.leaves)} to {choice.title}."
    return f"Nothing runs. The broker was {choice}."


def _title(name: str) -> str:
    return KINDS[name].title if name in KINDS else name


@app.command()
def move(
    name: Annotated[Name, typer.Argument(help="The broker to move to.")],
    offset: Offset = 0,
    within: Annotated[float, typer.Option(min=1, help="Seconds to wait; the move itself goes on.")] = 600.0,
) -> None:
    """Move to another broker while everything runs: no order is lost, none is refused, and the order per key is kept.

    The new broker is started beside the old one. The services send to it and read both; when the old one is read to its
    end, it is stopped. Broken off, it goes on: the same command shows it again.
    """
    with sentences():
        ports = chosen_ports(offset, broker=name.value)
        wanted = WantedBroker(uuid.uuid4().hex, name.value, {port: ports[port] for port in BROKER_PORTS[name.value]})
        try:
            move_to(StateDirectory(state_directory(offset)), wanted, within, lambda text: print(text, flush=True))
        except KeyboardInterrupt:
            raise PlatformError(
                f"It goes on moving to {_title(name)} in the background.",
                f"`ftgo broker move {name}` shows it again, `ftgo status` where it stands.",
            ) from None
    if (asked := os.environ.get("FTGO_BROKER")) and asked != name.value:
        print(f"FTGO_BROKER={asked} in this shell would change it back at the next `ftgo up`: unset it.")


def move_to(directory: StateDirectory, wanted: WantedBroker, within: float, tell: Callable[[str], object]) -> None:
    """Ask for the move, unless it is under way, and tell of it until it is through.

    Raises NotRunningError, and PlatformError when it is refused, fails, or is not through in time.
    """
    state = _state(directory)
    if state.phase != "ready":
        raise PlatformError("`ftgo up` is not through yet.", "Wait until everything is up.")
    for each in (wanted.name, state.broker):
        if each in KINDS and not KINDS[each].runs:
            raise PlatformError(
                "A system without a broker moves while it stands still.",
                f"`ftgo down`, `ftgo up --broker {wanted.name}`.",
            )
    if not (state.move and state.move.under_way):
        directory.want_broker(wanted)
    deadline, teller = time.monotonic() + within, _Teller(tell)
    while True:
        current = _state(directory).move
        if current and current.under_way and current.to != wanted.name:
            raise PlatformError(
                f"A move to {_title(current.to)} is under way.", "Move on when it is through: `ftgo broker` tells."
            )
        if current and (current.under_way or current.wish == wanted.wish or teller.has_told):
            teller.tell_of(current)
            if current.phase == "done":
                return
            if current.phase == "failed":
                raise PlatformError(current.cause, current.cure, Path(current.log) if current.log else None)
        if time.monotonic() > deadline:
            waits = f" It waits: {current.waits_for}." if current and current.waits_for else ""
            raise PlatformError(
                f"The move is not through after {within:.0f} s, and goes on.{waits}",
                f"`ftgo broker move {wanted.name}` shows it again; nothing is lost by waiting, nor by `ftgo down`.",
            )
        time.sleep(LOOK_SECONDS)


def _state(directory: StateDirectory) -> PlatformState:
    state = directory.read()
    if state is None or not directory.is_locked():
        raise NotRunningError("ftgo is not up.", "`ftgo up` starts it, and goes on with a move that was under way.")
    return state


class _Teller:
    """Says each line once, and what is waited for when it has changed, at most once a second."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._told = 0
        self._waits = ""
        self._at = 0.0
        self.has_told = False

    def tell_of(self, move: MoveState) -> None:
        self.has_told = True
        self._told = self._told if self._told <= len(move.lines) else 0  # a new supervisor begins to tell anew
        for line in move.lines[self._told :]:
            self._tell(line)
        self._told = len(move.lines)
        if move.waits_for and move.waits_for != self._waits and time.monotonic() - self._at > TELL_SECONDS:
            self._tell(f"  waits: {move.waits_for}")
            self._waits, self._at = move.waits_for, time.monotonic()
