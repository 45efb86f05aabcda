"""Keeps one process as the user wants it: running or stopped, and running again after it died."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ftgo_local.cures import cure
from ftgo_local.errors import PlatformError
from ftgo_local.identity import Identity
from ftgo_local.progress import Progress
from ftgo_local.state import StateDirectory, UnitState

TICK_SECONDS = 0.1
SHORT_LIFE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 10.0


class Unit(Protocol):
    """A process of the platform: PostgreSQL, the broker or a service. One that starts further processes, which do not
    end with it, has their pids as ``helpers``."""

    name: str
    log: Path

    @property
    def pid(self) -> int | None: ...

    @property
    def end(self) -> str: ...

    async def start(self) -> None:
        """Raises PlatformError when it does not start."""

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class Keeper:
    """Starts a unit and keeps it. ``save`` puts ``state`` on disk after each change of it, and raises nothing."""

    def __init__(self, unit: Unit, directory: StateDirectory, progress: Progress, save: Callable[[], None]) -> None:
        self.unit = unit
        self.state = UnitState(log=str(unit.log))
        self._directory = directory
        self._progress = progress
        self._save = save
        self._started = 0.0
        self._early_deaths = 0

    async def start(self) -> None:
        """Start the unit. Its pid is on disk as soon as there is one, to be found if we are killed meanwhile."""
        starting = asyncio.create_task(self.unit.start())
        try:
            while not starting.done():
                self.record("starting")
                await asyncio.wait({starting}, timeout=TICK_SECONDS)
        finally:
            starting.cancel()
        try:
            await starting
        except PlatformError:
            self.record("failed")
            raise
        except OSError as error:
            self.record("failed")
            raise PlatformError(f"{self.unit.name} cannot be started: {error}.", cure(error)) from error
        self.record("running")

    async def keep_running(self) -> None:
        """Follow the user's wishes and the unit's deaths until cancelled, whatever goes wrong meanwhile.

        The first death is answered at once; after several deaths within seconds of the start the pauses grow.
        """
        self._started = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._look()
            except Exception as error:  # a full disk, no memory for one more process: nobody else would look after it
                self._say(f"{self.unit.name} could not be looked after ({error!r}): it is tried again.")
                await asyncio.sleep(LONGEST_PAUSE_SECONDS)

    async def _look(self) -> None:
        wanted = self._directory.wanted(self.unit.name)
        if self.unit.pid:
            if not wanted.run or wanted.generation != self.state.generation:
                self._say(f"{self.unit.name} (pid {self.unit.pid}) is stopped as asked.")
                await asyncio.to_thread(self.unit.stop)
                self.record("stopped")
        elif not wanted.run:
            self.record("stopped")
        else:
            if self.state.status != "stopped":
                early = time.monotonic() - self._started < SHORT_LIFE_SECONDS
                self._early_deaths = self._early_deaths + 1 if early else 0
                await self._pause_after_death(self._early_deaths)
            self._started = time.monotonic()
            self.state.generation = wanted.generation
            await self._start_again()

    def record(self, status: str) -> None:
        """Put status and pid on disk, if they are new."""
        pid = self.unit.pid
        if (status, pid) == (self.state.status, self.state.pid):
            return
        if pid != self.state.pid:
            self.state.pid, self.state.started = pid, Identity.of(pid).started if pid else ""
            helpers: Sequence[int] = getattr(self.unit, "helpers", ())
            self.state.helpers = [Identity.of(helper) for helper in helpers]
        self.state.status = status
        self._save()

    async def _pause_after_death(self, early_deaths: int) -> None:
        pause = min(0.25 * 2**early_deaths, LONGEST_PAUSE_SECONDS) if early_deaths > 1 else 0.0
        when = f"in {pause:.1f} s" if pause else "at once"
        self._say(f"{self.unit.name} (pid {self.state.pid or '-'}) {self.unit.end}: it is started again {when}.")
        self.state.restarts += 1
        self.record("failed")
        await asyncio.sleep(pause)

    async def _start_again(self) -> None:
        try:
            await self.start()
        except PlatformError as error:
            self._say(f"{self.unit.name} did not start: {error}")
        else:
            self._say(f"{self.unit.name} runs with pid {self.unit.pid}.")

    def _say(self, text: str) -> None:
        """To the terminal and to the unit's own log, where the reader of that log looks for the reason of a gap."""
        self._progress.note(text)
        with suppress(OSError), self.unit.log.open("a") as log:
            log.write(f"ftgo: {text}\n")
