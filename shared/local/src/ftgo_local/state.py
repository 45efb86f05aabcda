"""The state directory: who owns it, what runs, what the user wants to run.

    lock              held (flock) by the supervisor as long as it lives
    state.json        what runs: written by the supervisor, read by the other commands
    wanted.json       what should run: written by the commands stop, start and restart, followed by the supervisor
    wanted-broker.json    which broker is to be used instead: written by `ftgo broker move`, followed by the supervisor
    broker.json       which broker is used, also by the next start (``broker_choice``)
    addresses/        where running services find their brokers (``broker_file``)
    journal.jsonl     the progress of the last start, for the terminal that asked for it
    logs/  postgres/  seed.json, and a folder for each broker that has run here: kafka/, nats/ ...

Nothing but files and signals: a command can be killed, and the supervisor can, and the next command finds its way.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ftgo_local.errors import AlreadyRunningError, PlatformError
from ftgo_local.files import read_json, replace
from ftgo_local.identity import Identity
from ftgo_local.unprivileged import private_directory

Version = tuple[int, int, int]

POSTGRES = "postgres"


def state_directory(offset: int = 0, environment: Mapping[str, str] = os.environ) -> Path:
    """FTGO_STATE_DIR; else ``.ftgo`` of the checkout around the current folder, ``.ftgo/offset-N`` for another copy."""
    if given := environment.get("FTGO_STATE_DIR"):
        return Path(given).absolute()
    here = Path.cwd()
    root = next((p for p in (here, *here.parents) if (p / "requirements.lock").exists()), here)
    return root / ".ftgo" / f"offset-{offset}" if offset else root / ".ftgo"


@dataclass
class UnitState:
    """One process of the platform as the supervisor sees it."""

    status: str = "starting"  # starting, running, failed (and about to be started again) or stopped (as asked)
    pid: int | None = None
    started: str = ""  # Identity's
    restarts: int = 0
    generation: int = 0  # the restart request that this process has answered
    log: str = ""
    helpers: list[Identity] = field(default_factory=list)  # processes that it needs and that would outlive it

    @property
    def identity(self) -> Identity | None:
        return Identity(self.pid, self.started) if self.pid else None


@dataclass
class MoveState:
    """The move from one broker to another that is under way, or the last one."""

    wish: str  # that it answers; none when a new start goes on with it
    source: str
    to: str
    phase: str = "preparing"  # preparing (all is as it was), moving, done or failed
    lines: list[str] = field(default_factory=list)  # what has happened
    waits_for: str = ""
    cause: str = ""  # why it failed, as PlatformError's
    cure: str = ""
    log: str = ""

    @property
    def under_way(self) -> bool:
        return self.phase in {"preparing", "moving"}

    def fail(self, cause: str, cure: str, log: str = "") -> None:
        self.phase, self.waits_for, self.cause, self.cure, self.log = "failed", "", cause, cure, log


@dataclass
class PlatformState:
    supervisor: Identity
    phase: str = "starting"  # starting, ready, stopping
    ports: dict[str, int] = field(default_factory=dict)
    units: dict[str, UnitState] = field(default_factory=dict)
    broker: str = "kafka"  # its name; a unit of that name is ours, otherwise it runs elsewhere
    broker_url: str = ""  # as services reach it: may hold a password
    beside: str = ""  # during a move, the other broker: the one to come, and then the one that is left
    beside_url: str = ""
    move: MoveState | None = None

    @property
    def infrastructure(self) -> list[str]:
        """The units that are not services, in the order in which they are stopped."""
        return [name for name in (self.beside, self.broker, POSTGRES) if name in self.units]

    @property
    def services(self) -> list[str]:
        return [name for name in self.units if name not in (self.beside, self.broker, POSTGRES)]


@dataclass
class WantedBroker:
    """A wish to move to a broker that listens on these ports. ``wish`` tells one wish from another."""

    wish: str
    name: str
    ports: dict[str, int]


@dataclass
class Wanted:
    """What the user asked for: whether it runs, and how often a restart was asked for."""

    run: bool = True
    generation: int = 0


class StateDirectory:
    """Files of one copy of the platform. Every file is replaced in one step, so that a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.state = path / "state.json"
        self.journal = path / "journal.jsonl"
        self.seed = path / "seed.json"
        self.broker = path / "broker.json"
        self._written: Version | None = None
        self._wanted: tuple[Version | None, dict[str, Wanted]] = (None, {})
        self._wanted_broker = path / "wanted-broker.json"

    def create(self) -> None:
        """Make the folder. Raises PlatformError when that cannot be done."""
        try:
            os.fsencode(self.path).decode()
        except UnicodeDecodeError:
            raise PlatformError(
                f"The name of {os.fsencode(self.path)!r} is not UTF-8, and Java cannot use it.",
                "Set FTGO_STATE_DIR to a folder with another name.",
            ) from None
        try:
            private_directory(self.path)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self.logs.chmod(0o700)
        except OSError as error:
            raise PlatformError(
                f"{self.path} cannot be written: {error.strerror}.", "Set FTGO_STATE_DIR to a folder of yours."
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Own this directory. Raises AlreadyRunningError at once when another process does."""
        self.create()
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid: object = "?"
                with suppress(PlatformError):
                    pid = state.supervisor.pid if (state := self.read()) else "?"
                raise AlreadyRunningError(
                    f"ftgo is already up (pid {pid}, state in {self.path}).",
                    "See `ftgo status`; `ftgo down` stops it; --port-offset 100 runs a second copy beside it.",
                ) from None
            yield

    def is_locked(self) -> bool:
        try:
            with (self.path / "lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def read(self) -> PlatformState | None:
        """What the last supervisor wrote, alive or not; None when there is nothing.

        Raises PlatformError when the file is damaged: nobody knows then what a killed supervisor has left running.
        """
        return read_json(
            self.state,
            PlatformState,
            f"See whether `ps -ef` shows processes of {self.path}, end them, and delete the file. "
            "A running ftgo up writes it anew within a second.",
        )

    def write(self, state: PlatformState) -> None:
        """Raises OSError: a full disk, for one."""
        replace(self.state, json.dumps(asdict(state), indent=1))
        self._written = _version(self.state)

    def is_as_written(self) -> bool:
        """Whether state.json is still the file of our last ``write``."""
        return self._written is not None and _version(self.state) == self._written

    def wanted(self, name: str) -> Wanted:
        """What the user wants of that unit: to run, if nothing else was said. Cheap: reads the file when it changed.

        A damaged file changes no wish; who asks for the next one (``want``) is told.
        """
        path = self.path / "wanted.json"
        if (version := _version(path)) != self._wanted[0]:
            wishes = self._wanted[1]
            with suppress(PlatformError):
                wishes = read_json(path, dict[str, Wanted], "") or {}
            self._wanted = (version, wishes)
        return self._wanted[1].get(name, Wanted())

    def want(self, name: str, *, run: bool, again: bool = False) -> Wanted:
        """Ask the supervisor to run that unit or not; ``again`` asks for a restart. Returns what is wanted now.

        Raises PlatformError when the file of wishes is damaged.
        """
        path = self.path / "wanted.json"
        with (self.path / "wanted.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            wishes = read_json(path, dict[str, Wanted], "Delete it: what was stopped is started then.") or {}
            new = Wanted(run, wishes.get(name, Wanted()).generation + again)
            replace(path, json.dumps({unit: asdict(wish) for unit, wish in (wishes | {name: new}).items()}, indent=1))
        return new

    def want_broker(self, wanted: WantedBroker) -> None:
        """Ask the supervisor to move there."""
        replace(self._wanted_broker, json.dumps(asdict(wanted)))

    def wanted_broker(self) -> WantedBroker | None:
        """The newest wish that was not taken yet; it is taken now."""
        if not self._wanted_broker.exists():
            return None
        with suppress(PlatformError):  # damaged: who wrote it is told by the silence, and asks again
            wanted = read_json(self._wanted_broker, WantedBroker, "")
            self._wanted_broker.unlink(missing_ok=True)
            return wanted
        self._wanted_broker.unlink(missing_ok=True)
        return None

    def want_everything(self) -> None:
        """As at a start: all that was asked for before is forgotten."""
        (self.path / "wanted.json").unlink(missing_ok=True)
        self._wanted_broker.unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete all of this copy's files, but not the directories of other copies below it."""
        if not self.path.exists():
            return
        for entry in self.path.iterdir():
            if entry.name.startswith("offset-"):
                continue
            if entry.is_symlink():  # PostgreSQL's data, placed elsewhere
                shutil.rmtree(entry.resolve(), ignore_errors=True)
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _version(path: Path) -> Version | None:
    """Another after each replacement of the file; None when there is none."""
    try:
        file = path.stat()
    except FileNotFoundError:
        return None
    return file.st_mtime_ns, file.st_ino, file.st_size
