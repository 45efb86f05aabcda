"""Reads channels from Kafka in batches and commits offsets only after the database has committed.

FastStream's own batch subscriber sleeps after every empty poll, which costs latency at low load. Ours is the plain
subscriber: it waits for one record without polling, and takes along whatever else has been fetched by then.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from ftgo_messaging.channel import Channel
from ftgo_messaging.consumer.batch import BatchProcessor, Received
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.errors import is_transient
from ftgo_messaging.failpoints import failpoint
from ftgo_messaging.transactions import Transactions

log = structlog.get_logger("ftgo.kafka")


class ChannelConsumer:
    """A member of the consumer group ``name``, reading some channels. Delivery is at least once, in order per key;
    the batch processor makes the effects exactly once.

    ``instance`` keeps the membership over a restart (static membership): partitions are not moved meanwhile."""

    def __init__(
        self,
        name: str,
        channels: Iterable[Channel],
        handlers: MessageHandlers,
        transactions: Transactions,
        bootstrap: str,
        *,
        instance: str | None = None,
        max_records: int = 500,
    ) -> None:
        self.name = name
        self.channels = tuple(c.name for c in channels)
        self._processor = BatchProcessor(handlers, transactions)
        self._max_records = max_records
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self.running = False
        self.commits = 0
        self._broker = KafkaBroker(bootstrap, apply_types=False, logger=None, allow_auto_create_topics=False)
        self._subscriber = self._broker.subscriber(
            *self.channels,
            group_id=name,
            group_instance_id=instance,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            auto_offset_reset="earliest",
            parser=self._parse,
            decoder=_identity,
            title=name,
            # Far above the time of one batch, which the retry below keeps short.
            max_poll_interval_ms=300_000,
        )
        self._subscriber(self._consume)

    async def start(self) -> None:
        """Begin to read; while Kafka is away, keep trying. Returns at once."""
        self._task = asyncio.create_task(self._connect(), name=f"consumer-{self.name}")

    async def _connect(self) -> None:
        while True:
            try:
                await self._broker.start()
            except (KafkaError, OSError) as error:
                log.warning("consumer.waiting_for_kafka", consumer=self.name, error=str(error))
                await self._broker.stop()
                await asyncio.sleep(random.uniform(0.5, 1.5))
            else:
                self.running = True
                return

    async def stop(self) -> None:
        """Finish the batch in flight, commit its offsets, leave the group."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._broker.stop()
        self.running = False

    @property
    def progress_ok(self) -> bool:
        """Connected, and the last batch did not fail."""
        return self.running and self._failures == 0

    async def _parse(self, record: ConsumerRecord[Any, Any]) -> KafkaMessage:
        # FastStream's parser raises on headers that are not UTF-8, and the message would be lost. Ours cannot fail;
        # the batch processor decodes and keeps what is undecodable as a dead letter.
        consumer: Any = self._subscriber.consumer
        return KafkaMessage(body=record.value or b"", raw_message=record, headers={}, consumer=consumer)

    async def _consume(self, message: KafkaMessage) -> None:
        consumer: Any = message.consumer
        records: list[Any] = [message.raw_message]
        if self._max_records > 1:
            more = await consumer.getmany(timeout_ms=0, max_records=self._max_records - 1)
            records += [record for batch in more.values() for record in batch]
        try:
            await self._processor.process([_received(r) for r in records])
        except Exception as error:
            self._failures += 1
            log.warning("consumer.failed", consumer=self.name, error=repr(error), attempt=self._failures)
            _rewind(consumer, records)
            if not is_transient(error):
                log.error("consumer.bug", consumer=self.name, exc_info=error)
            await asyncio.sleep(min(0.1 * 2 ** min(self._failures, 6), 5.0) * random.uniform(0.5, 1.0))
            return
        self._failures = 0
        offsets: dict[TopicPartition, int] = {}
        for r in records:
            partition = TopicPartition(r.topic, r.partition)
            offsets[partition] = max(offsets.get(partition, 0), r.offset + 1)
        failpoint("subscriber.before_offset_commit")
        try:
            await consumer.commit(offsets)
            failpoint("subscriber.after_offset_commit")
            self.commits += 1
        except (CommitFailedError, IllegalStateError, KafkaError) as error:
            # The partition went to another member, or the broker is away: the batch comes again and is absorbed.
            log.info("consumer.offsets_not_committed", consumer=self.name, error=str(error))


async def _identity(message: KafkaMessage) -> KafkaMessage:
    return message


def _received(record: Any) -> Received:
    return Received(record.topic, record.partition, record.offset, record.key, record.headers, record.value)


def _rewind(consumer: Any, records: Sequence[Any]) -> None:
    """Every partition of the batch, not just the first record's: the others would be committed past."""
    first: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        first[partition] = min(first.get(partition, record.offset), record.offset)
    for partition, offset in first.items():
        try:
            consumer.seek(partition, offset)
        except IllegalStateError:
            continue  # revoked meanwhile: its next owner starts at the committed offset
