"""Publishes to Kafka with an idempotent producer: acks from all in-sync replicas, order kept per partition."""

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId

from ftgo_messaging.message import Message

log = structlog.get_logger("ftgo.kafka")

_POISONED = (OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId)


class KafkaPublisher:
    """Sends pipelined and waits for all acknowledgements once.

    A producer whose sequence numbers have a hole (leaderless partition, aiokafka issue 1017) refuses everything from
    then on: it is closed, and the next call makes a new one. The rows are still in the outbox and are sent again."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None

    async def _start(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=256 * 1024,
                # Longer than a broker's restart: giving up early costs a new producer and a repeated batch.
                request_timeout_ms=20_000,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Whether each message was acknowledged. A failed message stops the later ones of its key."""
        producer = await self._start()
        futures = [
            await producer.send(
                m.channel, m.body, key=m.key.encode(), headers=[(n, v.encode()) for n, v in m.headers.items()]
            )
            for m in messages
        ]
        results = await asyncio.gather(*futures, return_exceptions=True)
        errors = [r for r in results if isinstance(r, BaseException)]
        if errors:
            log.warning("publish.failed", failed=len(errors), of=len(messages), error=repr(errors[0]))
            if any(isinstance(e, _POISONED) or not isinstance(e, KafkaError) for e in errors):
                await self.close()
        blocked: set[tuple[str, str]] = set()
        acknowledged = []
        for message, result in zip(messages, results, strict=True):
            key = (message.channel, message.key)
            if isinstance(result, BaseException):
                blocked.add(key)
            # Arrived, but behind a failed one of its key: send it again after that one, so that the last
            # occurrences are in order; the receiver drops the repeated id.
            acknowledged.append(key not in blocked)
        return acknowledged

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()
