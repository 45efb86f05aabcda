"""A loop that goes on whatever happens, and ends when it is asked to."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from ftgo_messaging.runtime.loops import backoff, periodic
from ftgo_messaging.testing.eventually import eventually
from structlog.testing import capture_logs


def test_pauses_double_up_to_the_longest_and_are_never_shorter_than_half() -> None:
    for attempt, full in ((1, 0.1), (2, 0.2), (3, 0.4), (7, 5.0), (10_000, 5.0)):
        pauses = [backoff(attempt) for _ in range(200)]
        assert full / 2 <= min(pauses) < max(pauses) <= full
    assert backoff(3, first=1.0, longest=2.0) <= 2.0


async def _cancelled_by_somebody_else() -> None:
    other = asyncio.get_running_loop().create_future()
    other.cancel()
    await other


async def _timed_out() -> None:
    async with asyncio.timeout(0):
        await asyncio.sleep(10)


async def _bug() -> None:
    raise ValueError("a bug")


async def _exit() -> None:
    raise SystemExit


@pytest.mark.parametrize(
    ("failure", "level"),
    [(_bug, "error"), (_timed_out, "warning"), (_cancelled_by_somebody_else, "error"), (_exit, "error")],
)
async def test_no_failure_ends_a_loop(failure: Callable[[], Awaitable[None]], level: str) -> None:
    times = 0

    async def work() -> None:
        nonlocal times
        times += 1
        if times < 3:
            await failure()

    async def went_on() -> None:
        assert times > 3

    with capture_logs() as logs:
        loop = asyncio.create_task(periodic("work", work, 0.001, of="us"))
        await eventually(went_on)
        loop.cancel()
        await asyncio.wait([loop])
    assert loop.cancelled()
    assert [(e["event"], e["log_level"], e["of"]) for e in logs] == [("work.failed", level, "us")] * 2


async def test_a_cancellation_ends_the_work_in_its_middle() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    loop = asyncio.create_task(periodic("work", work, 0.001))
    await begun.wait()
    loop.cancel()
    await asyncio.wait([loop], timeout=5)
    assert loop.cancelled()
    assert ended.is_set()
