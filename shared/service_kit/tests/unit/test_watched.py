"""Consumers come and go while a process runs; whoever holds their list sees it."""

import asyncio

from ftgo_service_kit.watched import Watched


class Reading:
    """A consumer that reads nothing."""

    progress_ok = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.running = False


async def test_readiness_sees_those_of_now() -> None:
    """A consumer of a broker that was left makes no progress: held on to, it would make the process unready."""
    old, new = Reading("old"), Reading("new")
    watched = Watched([old], reads=True)
    held = watched.all
    await watched.start()
    await watched.add(new)
    assert held == [old, new]
    await watched.remove([old])
    assert held == [new]
    assert (old.running, new.running) == (False, True)
    another = Reading("another")
    await watched.add(another)
    assert held == [new, another]
    running = asyncio.create_task(watched.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    await watched.stop()
    assert not new.running
    assert not another.running
