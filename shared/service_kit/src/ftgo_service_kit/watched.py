"""The consumers of a running process, each with what looks after it."""

import asyncio
from collections.abc import Iterable, Sequence

from ftgo_messaging.consumer.consumer import Consumer

from ftgo_service_kit.stopping import within

STOP_SECONDS = 8.0
"""For all of them, at once."""


class Watched:
    """``run`` is one part of the process: it ends when one of the consumers cannot go on, and raises why. ``reads``:
    whether this process reads at all; ``all`` are the consumers of now, in one list that others may hold."""

    def __init__(self, consumers: Sequence[Consumer], reads: bool) -> None:
        self.all = list(consumers)
        self.reads = reads
        self._watching: dict[Consumer, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    async def start(self) -> None:
        for consumer in self.all:
            await consumer.start()
            self._watch(consumer)

    def _watch(self, consumer: Consumer) -> None:
        self._watching[consumer] = asyncio.create_task(consumer.watch(), name=f"consumer {consumer.name}")
        self._changed.set()

    async def add(self, consumer: Consumer) -> None:
        self.all.append(consumer)
        await consumer.start()
        self._watch(consumer)

    async def remove(self, consumers: Iterable[Consumer]) -> None:
        """Stop these, and let the others go on. What they were working at ends before, or comes again."""
        gone = [consumer for consumer in consumers if consumer in self.all]
        for consumer in gone:
            self._watching.pop(consumer).cancel()
        await asyncio.gather(*(self._stop(consumer) for consumer in gone))
        for consumer in gone:
            self.all.remove(consumer)

    async def run(self) -> None:
        """Until cancelled, and then nobody looks after them any more."""
        try:
            while True:
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({changed, *self._watching.values()}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for task in self._watching.values():
                    if task.done():
                        task.result()
                        return
        finally:
            for task in self._watching.values():
                task.cancel()

    async def stop(self) -> None:
        """All of them, at once. Never raises."""
        await asyncio.gather(*(self._stop(consumer) for consumer in self.all))

    async def _stop(self, consumer: Consumer) -> None:
        await within(STOP_SECONDS, f"consumer {consumer.name}", consumer.stop())
