"""What several of the wires have in common."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from wires import Raw

T = TypeVar("T")


class QueueEar:
    """An ``Ear`` of what a callback has put into a queue."""

    def __init__(self, heard: "asyncio.Queue[Raw]") -> None:
        self._heard = heard

    async def read(self, seconds: float) -> list[Raw]:
        return await drained(self._heard, seconds)


async def drained(heard: "asyncio.Queue[T]", seconds: float) -> list[T]:
    """What has been heard; when there is nothing, the first that comes within that time."""
    found = []
    try:
        async with asyncio.timeout(seconds):
            found.append(await heard.get())
    except TimeoutError:
        return []
    while not heard.empty():
        found.append(heard.get_nowait())
    return found


async def ended(closing: Coroutine[Any, Any, object]) -> None:
    """A client that closes its connection; one that does not come to an end with a broker that is away is left."""
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
