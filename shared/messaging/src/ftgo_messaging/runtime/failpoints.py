"""Failpoints: named places at every commit, publish and offset boundary where a test makes a process fail.

    FTGO_FAILPOINT="relay.published=exit"            die there, the first time
    FTGO_FAILPOINT="relay.published=exit@3"          die there, the third time
    FTGO_FAILPOINT="inbox.claimed=raise, relay.selected=pause:2.5@2"

Each entry fires once in the life of a process and says so on standard error. Only the environment switches them on,
and only at the start of a process; an entry that is wrong ends it with a sentence. Off, a point costs one call and one
look at an empty dictionary.

===========  ==============================================================================================
exit         the process ends at once, as by ``kill -9``: nothing is flushed, closed or given back
raise        FailpointReached is raised: an error that nobody foresaw
pause:S      the whole process stands still for S seconds, heartbeats included, as by SIGSTOP
===========  ==============================================================================================
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

POINTS: Mapping[str, str] = {
    "group_commit.collected": "requests wait for the transaction that has not begun",
    "transaction.before_commit": "everything is written, the commit has not been asked for",
    "transaction.after_commit": "committed; nobody has been told, not even the relay",
    "inbox.claimed": "the ids of a batch are recorded, no handler has run",
    "consumer.handled": "one handler of a batch has run, nothing of it is written",
    "consumer.flushed": "effects, replies and ids of a batch are written, not committed",
    "subscription.before_acknowledge": "the batch is committed in the database, the broker does not know",
    "subscription.acknowledged": "the broker knows as well",
    "relay.selected": "outbox rows are read, none is published",
    "relay.published": "the broker has confirmed them, they are still in the outbox",
    "relay.deleted": "they are gone from the outbox",
    "reconciler.found": "overdue sagas are known, none is reminded",
    "reconciler.reminded": "one of them is reminded and committed, the others are not",
}
"""All points, and what holds at each. A name that is not here can neither be called nor switched on."""

EXIT_CODE = 86
"""Of a process that a failpoint ended: no signal, no error of Python's has it."""


class FailpointReached(Exception):
    """Raised at a point that is set to ``raise``."""


@dataclass(slots=True)
class _Fault:
    point: str
    action: str
    seconds: float
    countdown: int

    def reached(self) -> None:
        self.countdown -= 1
        if self.countdown:
            return
        os.write(2, f"failpoint {self.point}: {self.action}\n".encode())
        if self.action == "exit":
            os._exit(EXIT_CODE)
        if self.action == "raise":
            raise FailpointReached(self.point)
        time.sleep(self.seconds)


def parse(entries: str) -> dict[str, _Fault]:
    """Faults by point. Raises ValueError with a sentence for an unknown point, an unknown action or a bad number."""
    faults = {}
    for entry in filter(None, (e.strip() for e in entries.split(","))):
        point, _, rest = entry.partition("=")
        action, _, nth = rest.partition("@")
        action, _, seconds = action.partition(":")
        if point not in POINTS:
            raise ValueError(f"FTGO_FAILPOINT: there is no point {point!r}; there are {', '.join(sorted(POINTS))}")
        if (nth and not nth.isdecimal()) or nth == "0":
            raise ValueError(f"FTGO_FAILPOINT: {entry!r}: after @ stands a number, counted from 1")
        if action not in {"exit", "raise", "pause"} or (action == "pause") != _is_number(seconds):
            raise ValueError(f"FTGO_FAILPOINT: {entry!r}: write exit, raise or pause:SECONDS, with or without @N")
        faults[point] = _Fault(point, action, float(seconds or 0), int(nth or 1))
    return faults


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


try:
    _armed = parse(os.environ.get("FTGO_FAILPOINT", ""))
except ValueError as error:
    raise SystemExit(str(error)) from None


def failpoint(point: str) -> None:
    """Does nothing, unless the environment of the process says otherwise."""
    if _armed and (fault := _armed.get(point)) is not None:
        fault.reached()
