"""Publishes to Kafka with an idempotent producer: acks from all in-sync replicas, order kept per partition."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownProducerId,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from ftgo_messaging.messages.message import Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.kafka.binding import to_kafka
from ftgo_messaging.transports.lanes import hash_of_key
from ftgo_messaging.transports.port import Sent

log = structlog.get_logger("ftgo.kafka")

_POISONED = (OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId)
_BATCH_BYTES = 256 * 1024
REQUEST_BYTES = 1_000_000
"""Of the batches of one request. The broker closes the connection of whoever announces more than its
``socket.request.max.bytes``, which is twice that (shared/local, docker-compose.yml, k8s): only a single message may be
larger than this, by its own overhead."""

_STOP_SECONDS = 2.0
_PATIENCE = 10.0
"""Seconds beyond the time of a request, until a broker that says nothing is away."""


class NoSuchTopic(UnknownTopicOrPartitionError):  # type: ignore[misc]
    """The broker was asked just now: the channel was never declared."""

    retriable = False


@dataclass(slots=True, eq=False)
class _Batch:
    """Messages of one partition that travel together; ``indexes`` are their places in what was to be published."""

    channel: str
    partition: int
    builder: BatchBuilder
    indexes: list[int] = field(default_factory=list)
    sent: bool = False


class KafkaPublisher:
    """Builds a batch per partition, sends them all and waits for all acknowledgements once.

    A producer whose sequence numbers have a hole (leaderless partition, aiokafka issue 1017, or a batch that the
    broker refused) refuses everything from then on: it is closed, and a new one is made. The rows are still in the
    outbox and are sent again."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        *,
        # Longer than a broker's restart: giving up early costs a new producer and a repeated batch.
        request_timeout: float = 20.0,
        max_message_bytes: int = 1_000_000,
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._request_timeout_ms = int(request_timeout * 1000)
        self._max_message_bytes = max_message_bytes
        self._producer: AIOKafkaProducer | None = None

    async def _start(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH_BYTES,
                request_timeout_ms=self._request_timeout_ms,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        """What became of each message. What follows a refused one of its key is not sent. Raises TransientError while
        no broker answers.

        Cancelled, it throws the producer away: what is not on its way to the broker yet is never sent."""
        try:
            # An idempotent producer tries again for ever: its sequence must have no hole.
            async with asyncio.timeout(self._request_timeout_ms / 1000 + _PATIENCE):
                errors = await self._send(messages)
                await self._find_the_guilty(messages, errors)
        except asyncio.CancelledError:
            await self._abandon()
            raise
        except TimeoutError as silent:
            await self._abandon()
            raise TransientError("Kafka does not answer") from silent
        except KafkaError as away:
            raise TransientError(f"Kafka is away: {away!r}") from away
        return [Sent.CONFIRMED if e is None else Sent.REFUSED if _is_refusal(e) else Sent.UNKNOWN for e in errors]

    async def _find_the_guilty(self, messages: Sequence[Message], errors: list[BaseException | None]) -> None:
        """The broker refuses batches, not messages: send those of a refused batch again, one by one. What follows a
        refused message of its key is not sent."""
        suspects = [i for i, error in enumerate(errors) if error is not None and _is_refusal(error)]
        if len(suspects) < 2:
            return
        blocked: set[tuple[str, str]] = set()
        for i in suspects:
            key = (messages[i].channel, messages[i].key)
            if key not in blocked:
                errors[i] = (await self._send([messages[i]]))[0]
                if errors[i] is not None:
                    blocked.add(key)

    async def _send(self, messages: Sequence[Message]) -> list[BaseException | None]:
        """Send everything, in batches; returns for each message why it is not known to have arrived, or None."""
        producer = await self._start()
        errors: list[BaseException | None] = [None] * len(messages)
        partitions = dict.fromkeys({x.channel for x in messages}, 0)
        for channel in partitions:
            partitions[channel] = await self._partitions(producer, channel)
        batches = self._build(producer, messages, partitions, errors)
        for request in _requests(batches):
            failure = await self._send_request(request, errors)
            if failure is not None and not _is_refusal(failure):
                # The broker is away: what comes behind would wait as long, and in vain.
                for i in (i for batch in batches for i in batch.indexes if errors[i] is None and not batch.sent):
                    errors[i] = failure
                break
        if any(errors):
            found = [e for e in errors if e is not None]
            log.warning("publish.failed", failed=len(found), of=len(messages), error=repr(found[0]))
        return errors

    async def _send_request(
        self, batches: Sequence[_Batch], errors: list[BaseException | None]
    ) -> BaseException | None:
        """Send these batches, which travel in one request at most, and note the errors of their messages. Returns one
        that is no refusal, if there is one, else one that is."""
        producer = await self._start()
        futures = []
        for batch in batches:
            batch.sent = True
            futures.append(await producer.send_batch(batch.builder, batch.channel, partition=batch.partition))
        results = await asyncio.gather(*futures, return_exceptions=True)
        failures = [(b, r) for b, r in zip(batches, results, strict=True) if isinstance(r, BaseException)]
        for batch, failure in failures:
            for i in batch.indexes:
                errors[i] = failure
        if failures:
            # Its sequence number was given away: the partition's next batch would be out of sequence.
            await self._abandon()
        return min((failure for _, failure in failures), key=_is_refusal, default=None)

    async def _partitions(self, producer: AIOKafkaProducer, channel: str) -> int:
        """How many partitions a topic has; 0 when there is no such topic. Asks the broker once, and waits no longer:
        a missing topic must not hold up the others."""
        known = producer.client.cluster.partitions_for_topic(channel)
        if not known:
            producer.client.add_topic(channel)
            await producer.client.force_metadata_update()
            known = producer.client.cluster.partitions_for_topic(channel)
        return len(known or ())

    def _build(
        self,
        producer: AIOKafkaProducer,
        messages: Sequence[Message],
        partitions: dict[str, int],
        errors: list[BaseException | None],
    ) -> list[_Batch]:
        """Batches in the order in which they have to be sent. What is refused here never takes a sequence number."""
        filling: dict[tuple[str, int], _Batch] = {}
        full: list[_Batch] = []
        refused: dict[tuple[str, str], BaseException] = {}
        for i, message in enumerate(messages):
            channel, key = message.channel, message.key.encode()
            headers = to_kafka(message.headers)
            if refused and (earlier := refused.get((channel, message.key))):
                errors[i] = earlier
                continue
            count = partitions[channel]
            if count == 0 or self._is_too_large(message, key, headers):
                refusal = (
                    MessageSizeTooLargeError(f"{len(message.body)} bytes, at most {self._max_message_bytes}")
                    if count
                    else NoSuchTopic(f"no topic {channel}")
                )
                errors[i] = refused[channel, message.key] = refusal
                continue
            place = (channel, hash_of_key(message.key) % count)
            batch = filling.get(place)
            if batch is None:
                batch = filling[place] = _Batch(*place, producer.create_batch())
            if batch.builder.append(timestamp=None, key=key, value=message.body, headers=headers) is None:
                full.append(batch)
                batch = filling[place] = _Batch(*place, producer.create_batch())
                batch.builder.append(timestamp=None, key=key, value=message.body, headers=headers)
            batch.indexes.append(i)
        return full + list(filling.values())

    def _is_too_large(self, message: Message, key: bytes, headers: list[tuple[str, bytes]]) -> bool:
        if len(message.body) < self._max_message_bytes // 2:
            return False
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, message.body, headers)
        return bool(size > self._max_message_bytes)

    async def close(self) -> None:
        """Send what is under way, within 2 s, and disconnect."""
        producer = self._producer
        if producer is None:
            return
        # stop() waits until everything is acknowledged: while the broker is away, for ever.
        stopping = asyncio.ensure_future(producer.flush())
        await asyncio.wait({stopping}, timeout=_STOP_SECONDS)
        stopping.cancel()
        await self._abandon()

    async def _abandon(self) -> None:
        """Disconnect at once; what is not acknowledged is unknown, and its rows are still in the outbox."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer._closed = True  # or its destructor would complain
            await producer._sender.close()
            await producer.client.close()


def _requests(batches: Sequence[_Batch]) -> Iterator[list[_Batch]]:
    """In their order, as many together as one request may hold."""
    request: list[_Batch] = []
    size = 0
    for batch in batches:
        if request and size + batch.builder.size() > REQUEST_BYTES:
            yield request
            request, size = [], 0
        request.append(batch)
        size += batch.builder.size()
    if request:
        yield request


def _is_refusal(error: BaseException) -> bool:
    """The message itself, or its topic, is to blame: not the connection, not the broker, not the producer."""
    return isinstance(error, KafkaError) and not error.retriable and not isinstance(error, _POISONED)
