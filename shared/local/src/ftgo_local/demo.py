"""``ftgo demo``: a guided tour of six scenes against the running system; it starts one if none runs."""

import asyncio
import os
from collections.abc import Sequence

import httpx

from ftgo_local.console import command, for_stdout
from ftgo_local.errors import PlatformError
from ftgo_local.launch import supervise_in_background
from ftgo_local.scenes import SCENES, Scene
from ftgo_local.scenes.control import Control
from ftgo_local.scenes.stage import Stage
from ftgo_local.scenes.tour import show
from ftgo_local.state import StateDirectory


def demo(
    directory: StateDirectory,
    offset: int,
    numbers: Sequence[int] = (),
    *,
    broker: str | None = None,
    pause: bool = False,
) -> None:
    """Show the scenes with these numbers, all when there are none. Raises PlatformError when one goes wrong, and when
    what runs runs on another broker than is asked for.

    With FTGO_ORDER_URL (and the other three) it plays against those services; scenes that stop processes are left out.
    """
    unknown = set(numbers) - {scene.number for scene in SCENES}
    if unknown:
        raise PlatformError(f"There is no scene {min(unknown)}.", f"The scenes are 1 to {len(SCENES)}.")
    remote = "FTGO_ORDER_URL" in os.environ
    started = not remote and not directory.is_locked()
    if started:
        supervise_in_background(directory, offset, for_stdout(offset, detached=True), broker)
    elif not remote and broker not in {None, (runs := Control(directory).state.broker)}:
        raise PlatformError(f"It runs on {runs}, not on {broker}.", f"`{command()} down` stops it; then ask again.")
    scenes = [scene for scene in SCENES if not numbers or scene.number in numbers]
    asyncio.run(_play(scenes, None if remote else Control(directory), pause=pause))
    if started:
        print(f"\nEverything still runs. `{command()} down{f' --port-offset {offset}' if offset else ''}` stops it.")


async def _play(scenes: Sequence[Scene], control: Control | None, *, pause: bool) -> None:
    async with httpx.AsyncClient(timeout=40, trust_env=False) as client:
        stage = control.stage(client) if control else Stage.from_environment(client)
        stage.tell = print
        await show(scenes, stage, pause=pause, cure=f"See `{command()} status` and `{command()} logs order`.")
