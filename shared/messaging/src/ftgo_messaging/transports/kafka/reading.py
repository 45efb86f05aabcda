"""The reading of one consumer: take records, handle them, and go on behind them or take them again."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError, UnsupportedCodecError

from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.progress import Progress
from ftgo_messaging.messages.message import Received
from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.runtime.errors import is_time_limit, is_transient
from ftgo_messaging.runtime.loops import backoff
from ftgo_messaging.transports.kafka.bounds import TAKEN_BYTES, relieved, size_of, some_of
from ftgo_messaging.transports.kafka.codecs import bound_decompression
from ftgo_messaging.transports.kafka.offsets import Offsets
from ftgo_messaging.transports.kafka.positions import Positions, rewind_batch
from ftgo_messaging.transports.kafka.unreadable import Unreadable, find_unreadable

log = structlog.get_logger("ftgo.kafka")

_ATTEMPTS = 3
"""Of a message alone whose statement takes too long. Then it is a dead letter."""

bound_decompression()


class Reading:
    """A batch in which a statement takes too long is handled again record by record, so that the guilty one is alone
    with its attempts; others come in between.

    ``attempts``: how often the batch that comes next has failed. ``idle`` while no batch is in flight. ``waiting``
    while all that the client has handed out is handled, or will be handed out again."""

    def __init__(
        self, name: str, processor: BatchProcessor, progress: Progress, offsets: Offsets, max_records: int
    ) -> None:
        self._name = name
        self._processor = processor
        self._progress = progress
        self._offsets = offsets
        self._max_records = max_records
        self._first: Any = None
        self._alone = 0
        self._cut_short: Counter[tuple[str, int, int]] = Counter()
        self.positions = Positions()
        self.attempts = 0
        self.revocations = 0
        self.waiting = False
        self.stopping = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    async def next_record(self, consumer: Any) -> Any:
        """What FastStream asks for, after it has handled what came before; None when there is nothing to handle. It
        gets the place of the record only, for it does not let go of what it has got: a hundred large records more."""
        try:
            self._first = await self._getone(consumer)
            return replace(self._first, key=None, value=None, headers=())
        except ConsumerStoppedError:
            raise
        except Exception as error:
            log.warning("consumer.fetch_failed", consumer=self._name, error=repr(error))
            if not isinstance(error, KafkaError) or isinstance(error, CorruptRecordException | UnsupportedCodecError):
                try:
                    if await self._pass_over(consumer, await find_unreadable(consumer)):
                        return None
                except Exception as trouble:
                    log.warning("consumer.failed", consumer=self._name, error=repr(trouble))
            await asyncio.sleep(backoff(1, first=1.0))
            return None

    async def _getone(self, consumer: Any) -> Any:
        self.waiting = True
        try:
            with contained():
                return relieved(consumer, await consumer.getone())
        finally:
            self.waiting = False

    async def take(self, consumer: Any) -> None:
        """Handle the record whose place was given last, and what else has been fetched by now, within the bounds."""
        first, self._first = self._first, None
        records = await self._taken_along(consumer, first)
        if not records:
            return
        self.idle.clear()
        try:
            await self._handle(consumer, records)
        finally:
            self.idle.set()
        if self.attempts:
            # Nothing is fetched and nothing handled meanwhile; a stop need not wait for the end of the pause.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), backoff(self.attempts))

    @property
    def _most(self) -> int:
        return 1 if self._alone else self._max_records

    async def _taken_along(self, consumer: Any, first: Any) -> list[Any]:
        """One by one: of packed records nobody knows the size before, and what cannot be read costs no other then."""
        records, room = [first], TAKEN_BYTES - size_of(first)
        while len(records) < self._most and room > 0:
            revocations = self.revocations
            try:
                with contained():
                    # During a rebalance this waits for the new assignment.
                    found = await consumer.getmany(timeout_ms=0, max_records=1)
            except Exception as error:
                log.warning("consumer.fetch_failed", consumer=self._name, error=repr(error))
                found = {}  # it will come first
            if self.revocations != revocations:
                # These are of the old one. Whoever has their partitions now reads them from the committed offset.
                records.clear()
            if not found:
                break
            _, one = found.popitem()
            records.append(relieved(consumer, one.pop()))
            room -= size_of(records[-1])
        return records

    async def _pass_over(self, consumer: Any, found: Unreadable | None) -> bool:
        """Handle what the client cannot read, one way or the other, and go on behind it; whether that is done."""
        if found is None:
            return False  # it can be read by now
        self.idle.clear()
        try:
            while chunk := some_of(found.records, self._most):
                if self.stopping.is_set():
                    return False
                place = f"{chunk[0].topic}/{chunk[0].partition}/{chunk[0].offset}"
                log.error("consumer.unreadable", consumer=self._name, record=place, error=found.cause)
                await self._handle(consumer, chunk, found.error)
                if self.attempts:
                    return False
            consumer.seek(found.partition, found.end)
            self.positions.move({found.partition: found.end})
            self._offsets.handled({found.partition: found.end}, consumer)
            return True
        finally:
            self.idle.set()

    async def _handle(self, consumer: Any, records: Sequence[Any], unreadable: str = "") -> None:
        self.positions.begin(records)
        place = (records[0].topic, records[0].partition, records[0].offset)
        try:
            with contained():
                if unreadable:
                    await self._processor.make_dead_letter(_received(records[0]), unreadable)
                else:
                    last = len(records) == 1 and self._cut_short[place] == _ATTEMPTS - 1
                    await self._processor.process([_received(r) for r in records], last_attempt=last)
        except Exception as error:
            self.attempts += 1
            self._progress.waiting = is_transient(error)
            log.warning("consumer.failed", consumer=self._name, error=repr(error), attempt=self.attempts)
            rewind_batch(consumer, records)
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
        self._offsets.handled(self.positions.handled(records), consumer)
        if self.stopping.is_set():
            await self._offsets.commit(consumer)


def _received(record: Any) -> Received:
    return Received(record.topic, record.partition, record.offset, record.key, record.headers, record.value)
