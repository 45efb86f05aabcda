"""How the parts of a process are stopped: each within its time, whatever it does."""

import asyncio
from collections.abc import Awaitable

import structlog

log = structlog.get_logger("ftgo.service")


async def within(seconds: float, part: str, stopping: Awaitable[object]) -> None:
    """Never raises: a part that does not stop is told, and left."""
    try:
        await asyncio.wait_for(stopping, seconds)
    except Exception as error:
        # Nothing is lost: what was not finished is in the outbox or comes again from the broker.
        log.warning("service.part_not_stopped", part=part, error=repr(error))
