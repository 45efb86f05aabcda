"""What happens during a start, as plain data: the supervisor tells, a terminal, a log file or a journal listens."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftgo_local.child import last_lines
from ftgo_local.cures import cure
from ftgo_local.errors import PlatformError


@dataclass
class Event:
    """One thing that happened. ``kind`` is one of

    started, done, failed (of ``step``), note (something to know), ready (all is up) and stopped (all is down).
    """

    kind: str
    step: str = ""
    text: str = ""
    seconds: float = 0.0
    cure: str = ""
    log: str = ""
    log_lines: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


@dataclass
class Step:
    """What a running step may add to its line, "12 topics" for instance."""

    text: str = ""


class Progress:
    """Tells every listener, in order. One that cannot write (a full disk, a terminal that has gone) misses the event:
    what is told of goes on."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def tell(self, event: Event) -> None:
        for listen in self._listeners:
            with suppress(OSError):
                listen(event)

    def note(self, text: str) -> None:
        self.tell(Event("note", text=text))

    def fail(self, step: str, error: PlatformError, seconds: float = 0.0) -> None:
        """Tell of a failed step, with its cause, its cure and the end of the log that tells more."""
        self.tell(failure(step, error, seconds))
        error.told = True

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Announce a step, time it, and tell how it ended. Raises PlatformError, told, whatever the step raised."""
        started = time.monotonic()
        self.tell(Event("started", name))
        step = Step()
        try:
            yield step
        except PlatformError as error:
            self.fail(name, error, time.monotonic() - started)
            raise
        except Exception as error:
            unexpected = PlatformError(f"{type(error).__name__}: {error}", cure(error))
            self.fail(name, unexpected, time.monotonic() - started)
            raise unexpected from error
        self.tell(Event("done", name, step.text, time.monotonic() - started))


def failure(step: str, error: PlatformError, seconds: float = 0.0) -> Event:
    lines = last_lines(error.log) if error.log else []
    return Event("failed", step, error.cause, seconds, error.cure, str(error.log or ""), lines)


def journal(path: Path) -> Listener:
    """A listener that writes events for ``read_journal``; a new journal replaces the old."""
    path.unlink(missing_ok=True)

    def listen(event: Event) -> None:
        with path.open("a") as file:
            file.write(json.dumps(asdict(event)) + "\n")

    return listen


def read_journal(path: Path, position: int) -> tuple[list[Event], int]:
    """The events after that position, and the position after them. An incomplete last line waits for the next call; a
    line of which a full disk took a part only is left out."""
    if not path.exists():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        complete, newline, _ = file.read().rpartition(b"\n")
    events = []
    for line in complete.splitlines():
        with suppress(ValueError):
            events.append(Event(**json.loads(line)))
    return events, position + len(complete) + len(newline)
