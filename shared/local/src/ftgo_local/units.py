"""The processes of one run, each with its keeper: launched, kept running, ended one by one or in order."""

import asyncio
from collections.abc import Sequence

from ftgo_local.keeper import Keeper, Unit
from ftgo_local.progress import Progress
from ftgo_local.state import PlatformState, StateDirectory

SAVE_SECONDS = 1.0


class Units:
    """What runs, and the state of it on disk."""

    def __init__(self, directory: StateDirectory, state: PlatformState, progress: Progress) -> None:
        self._directory = directory
        self._state = state
        self._progress = progress
        self._keepers: dict[str, Keeper] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._unsaved = False

    async def launch(self, unit: Unit, *, keep_running: bool = True) -> None:
        """Start it, and keep it running from now on, or from ``keep_running`` on. Raises PlatformError."""
        keeper = Keeper(unit, self._directory, self._progress, self.save)
        self._keepers[unit.name] = keeper
        self._state.units[unit.name] = keeper.state
        await keeper.start()
        if keep_running:
            self.keep_running(unit.name)

    def keep_running(self, name: str) -> None:
        self._keeping[name] = asyncio.create_task(self._keepers[name].keep_running())

    async def end(self, name: str) -> None:
        """Stop it for good: it is no unit of this run any more."""
        await self._let_go(name)
        if keeper := self._keepers.pop(name, None):
            await asyncio.to_thread(keeper.unit.stop)
            keeper.record("stopped")
        self._state.units.pop(name, None)
        self.save()

    async def end_all(self, last: Sequence[str]) -> None:
        """Those that are not named at the same time, and then those that are, in this order."""
        for name in list(self._keeping):
            await self._let_go(name)
        order = [("services", [name for name in self._keepers if name not in last])]
        order += [(name, [name]) for name in last if name in self._keepers]
        for title, names in order:
            keepers = [self._keepers[name] for name in names]
            if any(keeper.unit.pid for keeper in keepers):
                with self._progress.step(f"Stop {title}"):
                    await asyncio.gather(*(asyncio.to_thread(keeper.unit.stop) for keeper in keepers))
            for keeper in keepers:
                keeper.record("stopped")

    def kill(self) -> None:
        for keeper in self._keepers.values():
            keeper.unit.kill()

    async def _let_go(self, name: str) -> None:
        if task := self._keeping.pop(name, None):
            task.cancel()
            await asyncio.wait({task})

    def save(self) -> None:
        """Put the state on disk. A disk that takes nothing is told of once, and ends nothing."""
        try:
            self._directory.write(self._state)
        except OSError as error:
            if not self._unsaved:
                self._progress.note(f"The state cannot be written ({error}). Everything goes on; it is tried again.")
            self._unsaved = True
        else:
            if self._unsaved:
                self._progress.note("The state is written again.")
            self._unsaved = False

    async def keep_saved(self) -> None:
        """Write the state that could not be written, or that somebody has damaged or deleted."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if not self._directory.is_as_written():
                self.save()
