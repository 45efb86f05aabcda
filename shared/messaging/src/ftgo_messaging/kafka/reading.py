"""The reading of one consumer: take records, handle them, and go on behind them or take them again."""

import asyncio
import contextlib
from collections.abc import Sequence
from itertools import islice
from typing import Any

import structlog
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError, UnsupportedCodecError

from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.contained import contained
from ftgo_messaging.errors import is_transient
from ftgo_messaging.kafka.codecs import bound_decompression
from ftgo_messaging.kafka.offsets import Offsets
from ftgo_messaging.kafka.positions import Positions, rewind_batch
from ftgo_messaging.kafka.progress import Progress
from ftgo_messaging.kafka.unreadable import Unreadable, find_unreadable
from ftgo_messaging.loops import backoff
from ftgo_messaging.message import Received

log = structlog.get_logger("ftgo.kafka")

bound_decompression()


class Reading:
    """``attempts``: how often the batch that comes next has failed. ``idle`` while no batch is in flight. ``waiting``
    while all that the client has handed out is handled, or will be handed out again."""

    def __init__(
        self, name: str, processor: BatchProcessor, progress: Progress, offsets: Offsets, max_records: int
    ) -> None:
        self._name = name
        self._processor = processor
        self._progress = progress
        self._offsets = offsets
        self._max_records = max_records
        self._one_by_one = 0
        self.positions = Positions()
        self.attempts = 0
        self.revocations = 0
        self.waiting = False
        self.stopping = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    async def next_record(self, consumer: Any) -> Any:
        """What FastStream asks for, after it has handled what came before; None when there is nothing to handle."""
        try:
            return await self._getone(consumer)
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
                return await consumer.getone()
        finally:
            self.waiting = False

    async def take(self, consumer: Any, first: Any) -> None:
        """Handle this record, and what else has been fetched by now."""
        records: list[Any] = [first]
        self._one_by_one = max(0, self._one_by_one - 1)
        if self._max_records > 1 and not self._one_by_one:
            revocations = self.revocations
            try:
                with contained():
                    # During a rebalance this waits for the new assignment.
                    more = await consumer.getmany(timeout_ms=0, max_records=self._max_records - 1)
            except Exception as error:
                log.warning("consumer.fetch_failed", consumer=self._name, error=repr(error))
                self._one_by_one = self._max_records
                await self.positions.rewind(consumer)
                return
            if self.revocations != revocations:
                # The first record is of the old one. Whoever has its partition now reads it from the committed offset.
                records = []
            records += [record for batch in more.values() for record in batch]
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

    async def _pass_over(self, consumer: Any, found: Unreadable | None) -> bool:
        """Handle what the client cannot read, one way or the other, and go on behind it; whether that is done."""
        if found is None:
            return False  # it can be read by now
        self.idle.clear()
        try:
            while chunk := list(islice(found.records, self._max_records)):
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
            self._one_by_one = 0
            return True
        finally:
            self.idle.set()

    async def _handle(self, consumer: Any, records: Sequence[Any], unreadable: str = "") -> None:
        self.positions.begin(records)
        try:
            with contained():
                if unreadable:
                    await self._processor.make_dead_letter(_received(records[0]), unreadable)
                else:
                    await self._processor.process([_received(r) for r in records])
        except Exception as error:
            self.attempts += 1
            self._progress.waiting = is_transient(error)
            log.warning("consumer.failed", consumer=self._name, error=repr(error), attempt=self.attempts)
            rewind_batch(consumer, records)
            if not is_transient(error):
                log.error("consumer.bug", consumer=self._name, exc_info=error)
            return
        self.attempts = 0
        self._progress.waiting = False
        self._progress.made()
        self._offsets.handled(self.positions.handled(records), consumer)
        if self.stopping.is_set():
            await self._offsets.commit(consumer)


def _received(record: Any) -> Received:
    return Received(record.topic, record.partition, record.offset, record.key, record.headers, record.value)
