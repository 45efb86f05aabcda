"""Loops that never end by themselves, and the pauses between attempts: the one way to do either in this library."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.runtime.errors import is_transient, trace_of

log = structlog.get_logger("ftgo.loops")

JITTER = 0.2
"""Processes that were started together shall not work at the same moments for ever."""


def backoff(attempt: int, first: float = 0.1, longest: float = 5.0) -> float:
    """Seconds to wait after failed attempt number ``attempt``, counted from 1: ``first``, then twice as long each time,
    at most ``longest``. Up to a half of it is left out by chance, so that those who failed together come back one by
    one."""
    return min(first * 2.0 ** min(attempt - 1, 30), longest) * random.uniform(0.5, 1.0)


async def periodic(name: str, work: Callable[[], Awaitable[object]], every: float, **context: object) -> None:
    """Do ``work`` every ``every`` seconds, more or less by a fifth and for the first time after such a pause, until
    cancelled. A cancellation ends it at once, also in the middle of the work.

    Nothing else ends it. What the work raises goes to the log as ``<name>.failed``, with ``context``: a warning when
    it is transient, else an error with its stack trace; then comes the next time."""
    while True:
        await asyncio.sleep(every * random.uniform(1 - JITTER, 1 + JITTER))
        try:
            with contained():
                await work()
        except Exception as error:
            tell_failure(name, error, **context)


async def repeat(name: str, work: Callable[[], Awaitable[object]], stopped: Callable[[], bool] = lambda: False) -> None:
    """Do ``work`` again and again, until ``stopped()`` or cancelled. It waits in between as it sees fit.

    As for ``periodic``, nothing that it raises ends the loop; after a failure it rests for ``backoff`` seconds."""
    failures = 0
    while not stopped():
        try:
            with contained():
                await work()
            failures = 0
        except Exception as error:
            failures += 1
            tell_failure(name, error, attempt=failures)
            await asyncio.sleep(backoff(failures))


def tell_failure(name: str, error: BaseException, **context: object) -> None:
    """To the log, as ``<name>.failed``: a warning when it may pass by itself, else an error, with its stack trace
    where that tells anything."""
    if is_transient(error):
        log.warning(f"{name}.failed", error=repr(error), **context)
    else:
        log.error(f"{name}.failed", error=repr(error), **context, exc_info=trace_of(error))
