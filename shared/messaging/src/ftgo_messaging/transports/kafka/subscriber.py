"""Reads channels from Kafka in batches and commits offsets some time after the database has committed.

FastStream's own batch subscriber sleeps after every empty poll, which costs latency at low load. Ours is the plain
subscriber: it waits for one record without polling, and takes along whatever else has been fetched by then.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.progress import Progress
from ftgo_messaging.consumer.redrive import Redriver
from ftgo_messaging.messages.channel import Channel, Poison
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.runtime.loops import repeat
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transports.kafka.bounds import FETCHED_BYTES, fetch_no_more_than_one_answer
from ftgo_messaging.transports.kafka.lag import measure
from ftgo_messaging.transports.kafka.membership import Membership
from ftgo_messaging.transports.kafka.offsets import Offsets
from ftgo_messaging.transports.kafka.reading import Reading

log = structlog.get_logger("ftgo.kafka")

SESSION_SECONDS = 10.0
_REVOKE_SECONDS = 5.0
"""How long a rebalance waits for the batch in flight; well below the time that the broker waits for us."""
_COMMIT_SECONDS = 2.0
_STOP_SECONDS = 5.0


class ConsumerStuck(Exception):
    """This process cannot go on reading; another one, or the same started anew, can."""


class ChannelConsumer:
    """A member of the consumer group ``name``, reading some channels. Delivery is at least once, in order per key;
    the batch processor makes the effects exactly once.

    ``poison`` says what a dead letter means for the later messages of its key. By default commands wait behind it,
    and events and replies, which versions and ids guard, go on.
    ``instance`` keeps the membership over a restart (static membership): partitions are not moved meanwhile. It names
    one process: a second one under the same name takes the partitions of the first, and both notice and end.
    ``patience``: seconds without progress after which readiness says so and the subscription is begun anew."""

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
        poison: Poison | None = None,
        patience: float = 60.0,
    ) -> None:
        channels = tuple(channels)
        self.name = name
        self.channels = tuple(c.name for c in channels)
        self._processor = BatchProcessor(handlers, transactions, [c.name for c in channels if _parks(c, poison)])
        self._redriver = Redriver(self._processor)
        self._instance = instance
        self._task: asyncio.Task[None] | None = None
        self._disconnecting: asyncio.Task[None] | None = None
        self._membership = Membership(6 * SESSION_SECONDS)
        self._progress = Progress(name, patience)
        self._offsets = Offsets(name)
        self._reading = Reading(name, self._processor, self._progress, self._offsets, max_records)
        self.running = False
        self._broker = KafkaBroker(
            bootstrap,
            apply_types=False,
            logger=None,
            allow_auto_create_topics=False,
            consumer_only=True,  # or it opens a producer and an admin client too
            graceful_timeout=_STOP_SECONDS,
            # How soon a topic is seen that was deleted and made anew.
            metadata_max_age_ms=30_000,
        )
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
            listener=_Listener(self),
            session_timeout_ms=round(SESSION_SECONDS * 1000),
            fetch_max_bytes=FETCHED_BYTES,
            # Far above the time of one batch, which the retry below keeps short.
            max_poll_interval_ms=300_000,
        )
        self._subscriber(self._consume)
        self._subscriber.get_msg = self._reading.next_record  # type: ignore[method-assign]

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to read; while Kafka is away, keep trying. Returns at once."""
        self._reading.stopping.clear()
        self._task = asyncio.create_task(self._connect(), name=f"consumer-{self.name}")

    async def _connect(self) -> None:
        await repeat("consumer.connect", self._begin, stopped=lambda: self.running)

    async def _begin(self) -> None:
        try:
            # Joining a group may hang for ever on a broker that comes and goes.
            async with asyncio.timeout(max(30.0, self._progress.patience)):
                await self._broker.start()
        except Exception as error:
            await self._disconnect()
            if isinstance(error, KafkaError):
                raise TransientError(f"consumer {self.name} waits for Kafka: {error!r}") from error
            raise
        self._progress.begin()
        self.running = True

    async def stop(self) -> None:
        """Finish the batch in flight (5 s at most), commit its offsets, leave the group unless the membership is
        static. A batch that does not end in time is rolled back, and comes again."""
        self._reading.stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._commit()
        await self._disconnect()
        self.running = False

    async def _disconnect(self) -> None:
        """Whoever waits for it may be cut off, the disconnecting never is: by a second attempt the client, half
        stopped, would not be closed any more, and it would go on to connect again every 30 s."""
        if self._disconnecting is None or self._disconnecting.done():
            self._disconnecting = asyncio.create_task(self._close(), name=f"disconnect-{self.name}")
        await asyncio.shield(self._disconnecting)

    async def _close(self) -> None:
        client = getattr(self._subscriber.consumer, "_client", None)
        try:
            await self._broker.stop()
        except Exception as error:
            log.warning("consumer.not_stopped", consumer=self.name, error=repr(error))
        finally:
            if client is not None:
                await client.close()

    async def watch(self, every: float | None = None) -> None:
        """Until cancelled: handle the dead letters whose redrive was ordered, measure the lag, and begin the
        subscription anew when it makes no progress. Raises ConsumerStuck when that does not help either."""
        redriving = asyncio.create_task(self._redriver.run(), name=f"redrive-{self.name}")
        try:
            await self._watch(every or self._progress.patience / 12)
        finally:
            redriving.cancel()
            await asyncio.gather(redriving, return_exceptions=True)

    async def _watch(self, every: float) -> None:
        begun_anew: int | None = None
        while True:
            await asyncio.sleep(every)
            self._check_instance()
            if not self.running:
                continue
            await self._observe()
            if self._progress.stuck or not self._reads:
                if begun_anew == self._progress.steps:
                    raise ConsumerStuck(f"consumer {self.name} makes no progress, and beginning anew did not help")
                begun_anew = self._progress.steps
                log.error("consumer.stuck", consumer=self.name, seconds=round(self._progress.age))
                await self.stop()
                await self.start()

    @property
    def attempts(self) -> int:
        """How often the batch that comes next has failed."""
        return self._reading.attempts

    @property
    def revocations(self) -> int:
        """How often partitions were given up."""
        return self._reading.revocations

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """What it may read at present."""
        consumer: Any = self._subscriber.consumer
        return frozenset() if consumer is None else frozenset(consumer.assignment())

    @property
    def progress_ok(self) -> bool:
        """Connected and reading, the last batch did not fail, and there is progress if there is anything to do."""
        return self.running and self._reads and self.attempts == 0 and not self._progress.late

    @property
    def _reads(self) -> bool:
        """Whether FastStream's loop runs. It starts one anew that failed, but not one that was cancelled."""
        return not all(task.done() for task in self._subscriber.tasks)

    async def _observe(self) -> None:
        consumer: Any = self._subscriber.consumer
        assigned = self.partitions
        if consumer is None:
            return
        lag = await measure(consumer, self._reading.positions, lambda: self._reading.waiting)
        if lag.passed:
            self._reading.positions.move(lag.passed)
            self._offsets.handled(lag.passed, consumer)
        silent = bool(assigned) and time.time() - lag.last_fetch > self._progress.patience
        self._progress.observe(lag.of, len(assigned), silent=silent)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _parse(self, record: ConsumerRecord[Any, Any]) -> KafkaMessage:
        # FastStream's parser raises on headers that are not UTF-8, and the message would be lost. Ours cannot fail;
        # the batch processor decodes and keeps what is undecodable as a dead letter.
        consumer: Any = self._subscriber.consumer
        return KafkaMessage(body=b"", raw_message=record, headers={}, consumer=consumer)

    async def _consume(self, message: KafkaMessage) -> None:
        await self._reading.take(message.consumer)

    # -- rebalances ------------------------------------------------------------------------------------------------

    async def revoked(self) -> None:
        """Give the partitions up only when the batch in flight has ended and its offsets are committed, so that the
        next owner begins behind it. One that takes too long is left to the duplicate check of its messages."""
        self._reading.revocations += 1
        try:
            await asyncio.wait_for(self._reading.idle.wait(), _REVOKE_SECONDS)
        except TimeoutError:
            log.warning("consumer.revoked_in_flight", consumer=self.name)
        await self._commit()

    async def _commit(self) -> None:
        """Tell Kafka the offsets now. Not for long: without a coordinator the client would wait for ever."""
        if self._subscriber.consumer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._offsets.commit(self._subscriber.consumer), _COMMIT_SECONDS)

    def assigned(self) -> None:
        fetch_no_more_than_one_answer(self._subscriber.consumer)
        self._reading.positions.clear()
        self._offsets.forget()
        coordinator = getattr(self._subscriber.consumer, "_coordinator", None)
        self._membership.joined(getattr(coordinator, "member_id", ""))

    def _check_instance(self) -> None:
        if self._instance and self._membership.contested:
            log.error("consumer.instance_used_twice", consumer=self.name, instance=self._instance)
            raise ConsumerStuck(
                f"consumer {self.name}: another process is the instance {self._instance!r} too. Give each its own name"
            )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: ChannelConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._consumer.revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._consumer.assigned()


def _parks(channel: Channel, poison: Poison | None) -> bool:
    if poison is None:
        return channel.kind is Kind.COMMAND
    return poison is Poison.PARK_KEY


async def _identity(message: KafkaMessage) -> KafkaMessage:
    return message
