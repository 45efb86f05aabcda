"""The reading of one consumer: take a batch, handle it, and settle it or take it again."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable

import structlog

from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.fence import Fence
from ftgo_messaging.consumer.lanes import LaneLost
from ftgo_messaging.consumer.progress import Progress
from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.runtime.errors import is_time_limit, is_transient
from ftgo_messaging.runtime.loops import backoff
from ftgo_messaging.transports.port import Batch, BrokerRefuses, Subscription

log = structlog.get_logger("ftgo.consumer")

_ATTEMPTS = 3
"""Of a message alone whose statement takes too long. Then it is a dead letter."""


class Reading:
    """A batch in which a statement takes too long is handled again record by record, so that the guilty one is alone
    with its attempts; others come in between.

    ``attempts``: how often the batch that comes next has failed. ``in_hand`` is the batch that is being handled, since
    ``since`` (monotonic); ``idle`` is set while there is none."""

    def __init__(
        self,
        name: str,
        processor: BatchProcessor,
        subscription: Subscription,
        progress: Progress,
        max_records: int,
        fence: Callable[[Batch], Fence] | None = None,
    ) -> None:
        self._name = name
        self._processor = processor
        self._subscription = subscription
        self._progress = progress
        self._max_records = max_records
        self._fence = fence
        self._wait: asyncio.Timeout | None = None
        self._alone = 0
        self._cut_short: Counter[str] = Counter()
        self.attempts = 0
        self.in_hand: Batch | None = None
        self.since = 0.0
        self.stopping = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    async def round(self, wait: float) -> None:
        """One batch, or ``wait`` seconds without one. Raises BrokerRefuses; whatever else goes wrong is told, and costs
        a pause, in which nothing is taken and nothing handled."""
        try:
            async with asyncio.timeout(None) as self._wait:
                batch = await self._subscription.take(1 if self._alone else self._max_records, wait)
        except BrokerRefuses:
            raise
        except Exception as error:
            if self._wait is not None and self._wait.expired():
                return
            log.warning("consumer.fetch_failed", consumer=self._name, error=repr(error))
            await self._pause(backoff(1, first=1.0))
            return
        if batch is None:
            return
        self.in_hand, self.since = batch, time.monotonic()
        self.idle.clear()
        try:
            await self._handle(batch)
        finally:
            self.in_hand = None
            self.idle.set()
        if self.attempts:
            await self._pause(backoff(self.attempts))

    def interrupt(self) -> None:
        """End the wait for a batch, if that is what it does."""
        if self._wait is not None and self.in_hand is None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._wait.reschedule(asyncio.get_running_loop().time())

    async def _pause(self, seconds: float) -> None:
        """A stop need not wait for its end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _handle(self, batch: Batch) -> None:
        records = batch.records
        place = records[0].origin
        try:
            with contained():
                last = len(records) == 1 and self._cut_short[place] == _ATTEMPTS - 1
                fence = None if self._fence is None else self._fence(batch)
                await self._processor.process(records, last_attempt=last, fence=fence)
        except LaneLost as lost:
            log.info("consumer.lane_lost", consumer=self._name, error=str(lost))
            await self._subscription.release(batch)  # until the lanes are given up
            return
        except Exception as error:
            self.attempts += 1
            self._progress.waiting = is_transient(error)
            log.warning("consumer.failed", consumer=self._name, error=repr(error), attempt=self.attempts)
            await self._subscription.release(batch)
            if is_time_limit(error):
                self._alone = max(self._alone, len(records))
                self._cut_short[place] += len(records) == 1
            if not is_transient(error):
                log.error("consumer.bug", consumer=self._name, exc_info=error)
            return
        self.attempts = 0
        self._alone = max(0, self._alone - len(records))
        self._cut_short.pop(place, None)
        self._progress.waiting = False
        self._progress.made()
        self._subscription.settle(batch)
