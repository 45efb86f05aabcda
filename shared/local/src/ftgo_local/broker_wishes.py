"""What `ftgo broker move` asks the supervisor for: taken, refused, or gone on with after a start."""

import asyncio

from ftgo_local.broker_move import BrokerMove
from ftgo_local.broker_side import BrokerSide
from ftgo_local.brokers.kinds import KINDS
from ftgo_local.ports import BROKER_PORTS
from ftgo_local.progress import Progress
from ftgo_local.state import MoveState, PlatformState, StateDirectory, WantedBroker
from ftgo_local.units import Units

TICK_SECONDS = 0.1


class BrokerWishes:
    """Follows them, one at a time, as long as everything runs."""

    def __init__(
        self, directory: StateDirectory, state: PlatformState, side: BrokerSide, units: Units, progress: Progress
    ) -> None:
        self._directory = directory
        self._state = state
        self._side = side
        self._units = units
        self._progress = progress

    async def follow(self) -> None:
        """Until cancelled. A move that an earlier supervisor has begun goes on first."""
        if self._side.choice.leaves:
            await self._move(MoveState("", self._side.choice.leaves, self._side.choice.name))
        while True:
            if (wanted := self._directory.wanted_broker()) is not None:
                await self._take(wanted)
            await asyncio.sleep(TICK_SECONDS)

    async def _take(self, wanted: WantedBroker) -> None:
        choice = self._side.choice
        move = MoveState(wanted.wish, choice.leaves or choice.name, wanted.name)
        if choice.url:
            move.fail(f"{choice} was named by FTGO_BROKER_URL.", "Move between brokers that `ftgo up` starts itself.")
        elif choice.leaves and wanted.name != choice.name:
            move.fail(f"The move to {choice.title} is not through.", f"`ftgo broker move {choice.name}` goes on.")
        elif not choice.leaves and wanted.name == choice.name:
            move.fail(f"The broker is {choice.title} already.", "`ftgo broker` tells which it is.")
        else:
            self._state.ports.update({name: wanted.ports[name] for name in BROKER_PORTS[wanted.name]})
            await self._move(move)
            return
        self._state.move = move
        self._units.save()

    async def _move(self, move: MoveState) -> None:
        self._state.move = move
        self._units.save()
        self._progress.note(f"A move from {KINDS[move.source].title} to {KINDS[move.to].title} begins.")
        await BrokerMove(move, self._side, self._state, self._units, self._progress).run()
