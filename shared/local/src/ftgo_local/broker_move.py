"""From one broker to another while everything runs, as the supervisor does it.

1. The new broker is started beside the old one, and has the channels with their readers: nothing is lost there.
2. The services send to the new one, and read both. A relay goes on with a lane when that of the old broker is read to
   its end.
3. When no relay waits and nothing is left unread, the services let the old broker go, and it is stopped.

What is decided stands in ``broker.json`` before any service hears of it. So a supervisor that is killed anywhere is
followed by one that runs both brokers, and goes on. Until step 2 a failure leaves everything as it was.
"""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx

from ftgo_local.broker_choice import Choice
from ftgo_local.broker_side import BrokerSide
from ftgo_local.brokers.kinds import KINDS
from ftgo_local.cures import cure
from ftgo_local.errors import PlatformError
from ftgo_local.following import behind
from ftgo_local.ports import BROKER_PORTS, taken_port
from ftgo_local.progress import Progress
from ftgo_local.state import MoveState, PlatformState
from ftgo_local.units import Units

if TYPE_CHECKING:
    from ftgo_local.unread import Unread

LOOK_SECONDS = 0.25
ASK_SECONDS = 3.0


class BrokerMove:
    """One move. Tells of itself in ``move``, which is a part of ``state``."""

    def __init__(
        self, move: MoveState, side: BrokerSide, state: PlatformState, units: Units, progress: Progress
    ) -> None:
        self._move = move
        self._side = side
        self._state = state
        self._units = units
        self._progress = progress
        self._from, self._to = (KINDS[name].title for name in (move.source, move.to))

    async def run(self) -> None:
        """Go to the end, or to a failure, which ``move`` tells. Waits as long as it takes."""
        try:
            if not self._side.choice.leaves:
                await self._prepare()
            self._move.phase = "moving"
            await self._drain()
            await self._let_go()
        except PlatformError as error:
            self._fail(error)
        except Exception as error:
            self._fail(PlatformError(f"{type(error).__name__}: {error}.", cure(error)))
        else:
            self._move.phase = "done"
            self._say(f"The broker is {self._to} now. {self._from} is stopped, and keeps its data.")

    # -- the steps -------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        if error := taken_port({name: self._state.ports[name] for name in BROKER_PORTS[self._move.to]}):
            raise error
        async with aclosing(self._unread()) as unread:  # at once: a broker that cannot tell is not left
            await unread.left()
        await self._side.start_beside(self._move.to)
        self._say(f"{self._to} runs beside {self._from}, and has the channels and their readers.")

    async def _drain(self) -> None:
        if not self._side.choice.leaves:
            try:
                self._side.decide(Choice(self._move.to, leaves=self._move.source))
                self._side.note_state()
            except OSError as error:
                await self._side.stop_beside()
                raise PlatformError(f"The move cannot be written down: {error}.", cure(error)) from error
        self._say(f"The services are told to send to {self._to}, and to read both.")
        await self._until_all_follow(self._side.tell_services())
        self._say(f"Every service sends to {self._to}; no lane waits for {self._from}.")
        async with aclosing(self._unread()) as unread:
            while left := await unread.left():
                await self._wait(left)
        self._say(f"{self._from} is read to its end.")

    async def _let_go(self) -> None:
        await self._until_all_follow(self._side.tell_services(read_old=False))
        self._say(f"Every service has let {self._from} go.")
        self._side.decide(Choice(self._move.to))
        await self._side.stop_beside()

    # -- waiting and telling ---------------------------------------------------------------------------------------

    def _unread(self) -> "Unread":
        from ftgo_local.unread import Unread

        return Unread(self._from, self._side.url(self._move.source), self._side.readers)

    async def _until_all_follow(self, generation: int) -> None:
        async with httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False) as client:
            while waits := await behind(client, self._state, generation, self._from):
                await self._wait("; ".join(waits))

    async def _wait(self, text: str) -> None:
        if text != self._move.waits_for:
            self._move.waits_for = text
            self._units.save()
        await asyncio.sleep(LOOK_SECONDS)

    def _say(self, text: str) -> None:
        self._move.waits_for = ""
        self._move.lines.append(text)
        self._progress.note(text)
        self._units.save()

    def _fail(self, error: PlatformError) -> None:
        self._move.fail(error.cause, error.cure, str(error.log or ""))
        if not error.told:
            self._progress.note(f"The move to {self._to} failed: {error}")
        self._units.save()
