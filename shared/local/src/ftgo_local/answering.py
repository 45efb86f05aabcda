"""A server that was just started: whether it answers."""

import asyncio
from collections.abc import Awaitable, Callable

from ftgo_local.child import Child
from ftgo_local.cures import cure
from ftgo_local.errors import PlatformError


async def wait_until_it_answers(
    title: str, child: Child, answers: Callable[[], Awaitable[bool]], timeout: float, every: float
) -> None:
    """Raises PlatformError when it ends, or does not answer within so many seconds; nothing runs then."""
    try:
        async with asyncio.timeout(timeout):
            while not await answers():
                if child.pid is None:
                    raise PlatformError(f"{title} ended at its start.", cure(child.said), child.log)
                await asyncio.sleep(every)
    except TimeoutError:
        await asyncio.to_thread(child.kill)
        raise PlatformError(f"{title} did not answer within {timeout:.0f} s.", cure(child.said), child.log) from None
