"""A keeper with a real process, on a real disk that is full."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ftgo_local.errors import PlatformError
from ftgo_local.identity import Identity
from ftgo_local.keeper import Keeper
from ftgo_local.orphans import end_orphans
from ftgo_local.progress import Event, Progress
from ftgo_local.services import Service, ServiceSpec
from ftgo_local.state import PlatformState, StateDirectory


async def eventually(condition: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain until {what}") from None


def sleeper(folder: Path) -> Service:
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    return Service(ServiceSpec("order", command, command), 1, {}, folder / "order.log", cwd=folder)


async def test_a_full_disk_is_told_though_it_takes_no_line_of_the_log(small_disk: Any) -> None:
    unit = sleeper(small_disk.path)
    command = (sys.executable, "-c", "import sys; print('all the words of the log', flush=True)")
    unit._spec = ServiceSpec("order", command, command)
    unit.log.touch()
    small_disk.fill()
    await unit.start()
    with pytest.raises(PlatformError) as caught:
        await unit.wait_until_ready(20)
    assert "disk is full" in caught.value.cure


async def test_on_a_full_disk_a_process_that_dies_is_started_again(small_disk: Any) -> None:
    events: list[Event] = []
    directory, unit = StateDirectory(small_disk.path), sleeper(small_disk.path)
    keeper = Keeper(unit, directory, Progress(events.append), save=lambda: None)
    await keeper.start()
    keeping = asyncio.create_task(keeper.keep_running())
    try:
        small_disk.fill()
        for _ in range(2):
            old = unit.pid
            unit.kill()
            await eventually(lambda old=old: unit.pid not in {None, old}, "it runs again")
        assert keeper.state.restarts == 2
    finally:
        keeping.cancel()
        unit.kill()


async def test_what_a_unit_has_started_beside_itself_is_ended_with_it_when_both_were_left_behind(
    tmp_path: Path,
) -> None:
    directory = StateDirectory(tmp_path)
    unit, helper = sleeper(tmp_path), sleeper(tmp_path)
    await helper.start()
    unit.helpers = [helper.pid]  # type: ignore[attr-defined]
    state = PlatformState(Identity.of(os.getpid()))
    keeper = Keeper(unit, directory, Progress(), save=lambda: directory.write(state))
    state.units["order"] = keeper.state
    try:
        await keeper.start()
        assert await asyncio.to_thread(end_orphans, directory, Progress())
        await eventually(lambda: unit.pid is None and helper.pid is None, "both have ended")
    finally:
        unit.kill()
        helper.kill()


async def test_a_keeper_outlives_what_nobody_thought_of(small_disk: Any) -> None:
    """Its folder is a file all of a sudden: neither wishes nor logs can be read or written."""
    folder = small_disk.path / "state"
    folder.mkdir()
    events: list[Event] = []
    unit = sleeper(folder)
    unit.log = folder / "logs" / "order.log"
    keeper = Keeper(unit, StateDirectory(folder), Progress(events.append), save=lambda: None)
    await keeper.start()
    keeping = asyncio.create_task(keeper.keep_running())
    try:
        folder.rename(small_disk.path / "away")
        folder.touch()
        unit.kill()
        await eventually(lambda: any("tried again" in event.text for event in events), "the trouble is told")
        folder.unlink()
        (small_disk.path / "away").rename(folder)
        await eventually(lambda: unit.pid, "it runs again")
    finally:
        keeping.cancel()
        unit.kill()
