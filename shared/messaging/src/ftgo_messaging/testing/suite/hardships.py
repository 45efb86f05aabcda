"""Members in processes of their own, with a real database, that are paused and killed while messages come."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.messages.message import Message
from ftgo_messaging.runtime.connection import connect as connection_of
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.demands import needs, needs_processes, record
from ftgo_messaging.testing.suite.members import Wire, package_of
from ftgo_messaging.testing.suite.scene import Steps, new_steps, out_of_order, service_process, tables

CALM = 800
"""So many messages, or a third, before the first member is paused."""
START_SECONDS = 60
"""Until a process has started and handled something, on a busy machine."""


class Hardships:
    per_entity: int
    pause_seconds: float

    async def test_order_with_members_killed_and_paused(self, wire: Wire, database: str) -> None:
        """One is paused for longer than its lease, and wakes up; one is killed; others come; and again, as long as
        messages come: each entity's steps are made once, in order."""
        needs(wire, "ordered")
        needs_processes(wire)
        done, sent = await self._hardships(wire, database, keyed=True)
        twice = [step for step, times in Counter(done).items() if times > 1]
        record(wire.subject, "order_of_processes", {"violations": out_of_order(done), "messages": sent})
        assert (len(done), twice, out_of_order(done)) == (sent, [], 0)

    async def test_control_of_processes_without_a_key(self, wire: Wire, database: str) -> None:
        """With a new key for each message the same must show disorder, or the test before this one shows nothing."""
        needs_processes(wire)
        done, sent = await self._hardships(wire, database, keyed=False)
        record(wire.subject, "order_of_processes_without_a_key", {"violations": out_of_order(done), "messages": sent})
        assert len(set(done)) == sent
        assert out_of_order(done) > 0

    async def _hardships(self, wire: Wire, database: str, *, keyed: bool) -> tuple[list[tuple[str, int]], int]:
        steps = await new_steps(wire, "workers")
        sent = [
            steps.message(f"entity-{i}", n, "" if keyed else f"key-{random.random()}")
            for n in range(self.per_entity)
            for i in range(40)
        ]
        calm, publisher = min(CALM, len(sent) // 3), wire.publisher()

        async def publish(messages: list[Message]) -> None:
            for start in range(0, len(messages), 40):
                await wire.publish(messages[start : start + 40], publisher)
                await asyncio.sleep(0.02)

        async with tables(database) as engine, _crew(wire, database, steps) as crew:
            # One after the other: the second alone might have done all before the first has started.
            first = await crew.join()
            await publish(sent[: calm // 2])
            await eventually(lambda: _at_work(engine, steps, first), within=START_SECONDS)
            await crew.join()
            await publish(sent[calm // 2 : calm])
            async with _running(publish(sent[calm:])) as publishing:
                while not publishing.done():
                    paused = crew.pause()
                    waking = asyncio.create_task(asyncio.sleep(self.pause_seconds if keyed else 1.0))
                    await crew.join()
                    await asyncio.wait({publishing}, timeout=2)
                    crew.kill()
                    if len(crew.awake) < 2:
                        await crew.join()
                    await waking
                    crew.wake(paused)
                await publishing
            # Two seconds for each thousand: what waits is more, the more was sent.
            within, every = 4 * wire.patience + len(sent) / 500, max(0.02, len(sent) / 200_000)
            await eventually(lambda: _all_done(engine, steps, len(sent)), within=within, every=every)
            return await steps.done(engine), len(sent)


class _Crew:
    """Processes, each a member of the consumer, by their names; ``awake`` are neither paused nor killed."""

    def __init__(self, stack: AsyncExitStack, settings: dict[str, str]) -> None:
        self.awake: dict[str, asyncio.subprocess.Process] = {}
        self._stack = stack
        self._settings = settings
        self._paused: dict[str, asyncio.subprocess.Process] = {}
        self._number = count(1)

    async def join(self) -> str:
        name = f"member-{next(self._number)}"
        process = service_process(member=name, **self._settings)
        self.awake[name] = await self._stack.enter_async_context(process)
        return name

    def pause(self) -> str:
        """The one that is there for the longest time."""
        name = next(iter(self.awake))
        self._paused[name] = self.awake.pop(name)
        self._paused[name].send_signal(signal.SIGSTOP)
        return name

    def wake(self, name: str) -> None:
        self.awake[name] = self._paused.pop(name)
        self.awake[name].send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.awake.pop(next(iter(self.awake))).kill()


@asynccontextmanager
async def _crew(wire: Wire, database: str, steps: Steps) -> AsyncIterator[_Crew]:
    settings = {
        "url": wire.subject.url or "",
        "dsn": database,
        "consumer": wire.name("workers"),
        "channel": steps.channel.name,
        "package": package_of(wire.transport()),
    }
    async with AsyncExitStack() as stack:
        yield _Crew(stack, settings)


@asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Cancelled at the end, if it has not ended."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _at_work(engine: AsyncEngine, steps: Steps, member: str) -> None:
    found = text("SELECT count(*) FROM steps WHERE channel = :channel AND member = :member")
    async with connection_of(engine) as connection:
        rows = await connection.execute(found, {"channel": steps.channel.name, "member": member})
    assert rows[0][0] > 0, f"{member} has done nothing"


async def _all_done(engine: AsyncEngine, steps: Steps, expected: int) -> None:
    found = text("SELECT count(*) FROM steps WHERE channel = :channel")
    async with connection_of(engine) as connection:
        rows = await connection.execute(found, {"channel": steps.channel.name})
    assert rows[0][0] >= expected, f"{rows[0][0]} of {expected}"
