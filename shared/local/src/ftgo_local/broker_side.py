"""The brokers of one run: the one that the services send to and, during a move, the one beside it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ftgo_local import broker_file
from ftgo_local.broker_choice import VARIABLE, Choice, changed, remember
from ftgo_local.brokers.kinds import KINDS, shown
from ftgo_local.platform import Platform
from ftgo_local.progress import Progress
from ftgo_local.state import PlatformState, StateDirectory
from ftgo_local.together import all_of
from ftgo_local.units import Units
from ftgo_local.unprivileged import placed_elsewhere

if TYPE_CHECKING:
    from ftgo_messaging.messages.channel import Channel


class BrokerSide:
    """Starts them, makes the channels there, and tells the services where they are."""

    def __init__(
        self,
        directory: StateDirectory,
        state: PlatformState,
        units: Units,
        progress: Progress,
        choice: Choice,
        platform: Platform,
        channels: Sequence["Channel"],
        readers: Mapping[str, Collection[str]],
    ) -> None:
        self.choice = choice
        self.channels = channels
        self.readers = readers
        self._directory = directory
        self._state = state
        self._units = units
        self._progress = progress
        self._platform = platform
        self.note_state()

    def url(self, name: str) -> str:
        return (self.choice.url if name == self.choice.name else "") or self._platform.server(name).url

    def tell_services(self, *, read_old: bool = True) -> int:
        """Write the file that they follow: it says what the choice says, but without the broker that is left when that
        is not to be read any more. Returns its generation. Raises OSError; it says the old then."""
        left = [self.url(self.choice.leaves)] if self.choice.leaves and read_old else []
        return broker_file.write(self._directory, self.url(self.choice.name), left).generation

    async def start(self) -> None:
        """Start what is ours, or look for the one that runs elsewhere; then make the channels that are missing there.
        A move that was under way has two of them."""
        await all_of(self.start_one(name) for name in (self.choice.own, self.choice.leaves) if name)
        await self.declare(self.choice.name)
        if note := changed(self.choice, self._directory):
            self._progress.note(note)
        with suppress(OSError):  # a full disk: then the next start does not know of it
            remember(self.choice, self._directory)

    async def start_one(self, name: str) -> None:
        """Raises PlatformError, told."""
        kind, broker = KINDS[name], self._platform.server(name)
        if not kind.runs:
            with self._progress.step("Registry") as step:
                await broker.start()
                step.text = f"no broker: the services find each other in {shown(broker.url)}"
            return
        if kind.preparation:
            with self._progress.step(kind.preparation) as step:
                await broker.prepare()
                step.text = "verified"
        with self._progress.step(kind.title) as step:
            await self._units.launch(broker)
            step.text = f"127.0.0.1:{broker.port}"
        if place := placed_elsewhere(broker.directory):
            self._progress.note(place)

    async def declare(self, name: str) -> None:
        """Make the channels that are missing there. Raises PlatformError, told."""
        if not self.channels:
            return
        from ftgo_local.channels import declare

        elsewhere = bool(self.choice.url) and name == self.choice.name
        cure = f"Is it up, and is {VARIABLE} its address?" if elsewhere else "The log tells more."
        with self._progress.step("Channels") as step:
            made = await declare(self.url(name), self.channels, self.readers, cure)
            where = str(self.choice) if elsewhere else KINDS[name].title
            step.text = f"{made} made at {where}, {len(self.channels) - made} were there"

    def decide(self, choice: Choice) -> None:
        """Use these brokers from now on, also after the next start. Raises OSError; then all is as before."""
        remember(choice, self._directory)
        self.choice = choice

    async def start_beside(self, name: str) -> None:
        """One that is to be moved to. Whatever is raised: it does not run then, and all is as before."""
        self._state.beside, self._state.beside_url = name, self.url(name)
        try:
            await self.start_one(name)
            await self.declare(name)
        except Exception:
            await self.stop_beside()
            raise

    async def stop_beside(self) -> None:
        """The one that was left, or does not come after all."""
        name = self._state.beside
        await self._units.end(name)
        self._platform.forget(name)
        self.note_state()
        self._units.save()

    def note_state(self) -> None:
        """Let the state say what the choice says."""
        state, choice = self._state, self.choice
        state.broker, state.broker_url = choice.name, self.url(choice.name)
        state.beside, state.beside_url = choice.leaves, self.url(choice.leaves) if choice.leaves else ""
