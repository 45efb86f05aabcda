"""Strangers on Kafka: they publish what was published before, or what nobody should, and disturb the consumer groups.

They reach the broker past the proxy and belong to no service.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from topology import PARTITIONS, SUBSCRIPTIONS, TOPICS

Tell = Callable[..., None]


class _Intruder:
    """Begins again when the broker was away, and every 15 s with clients of its own making: one that hangs after a
    broker's crash hangs for a moment only. What is waiting, and how far it has read, stays."""

    session = 15.0

    def __init__(self, bootstrap: str, dice: random.Random, tell: Tell) -> None:
        self.bootstrap = bootstrap
        self.dice = dice
        self.tell = tell
        self.positions: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.session):
                    await self.act()
            except (KafkaError, OSError, TimeoutError):
                await asyncio.sleep(1)

    async def act(self) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", request_timeout_ms=10_000)
        try:
            await producer.start()
            yield producer
        finally:
            await _stop(producer)

    @asynccontextmanager
    async def reader(self, topics: Sequence[str]) -> AsyncIterator[AIOKafkaConsumer]:
        """Reads in no group, from the first record on, and after a trouble from where it was."""
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        try:
            await consumer.start()
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, self.positions.get(partition, 0))
            yield consumer
        finally:
            await _stop(consumer)

    async def read(self, reader: AIOKafkaConsumer, milliseconds: int) -> list[Any]:
        found = []
        for partition, records in (await reader.getmany(timeout_ms=milliseconds)).items():
            found += records
            self.positions[partition] = records[-1].offset + 1
        return found


class Duplicates(_Intruder):
    """Publishes a share of all records a second time, same id and all, up to ten seconds later and often in between
    others of their key: what a relay that crashed before its delete does, and an operator's replay."""

    def __init__(self, bootstrap: str, dice: random.Random, tell: Tell, share: float) -> None:
        super().__init__(bootstrap, dice, tell)
        self._share = share
        self._waiting: list[tuple[float, Any]] = []

    async def act(self) -> None:
        async with self.producer() as producer, self.reader(TOPICS) as reader:
            while True:
                for record in await self.read(reader, 200):
                    if self.dice.random() < self._share:
                        self._waiting.append((time.monotonic() + self.dice.uniform(0, 10), record))
                now = time.monotonic()
                for entry in [w for w in self._waiting if w[0] <= now]:
                    record = entry[1]
                    await producer.send_and_wait(
                        record.topic, record.value, record.key, partition=record.partition, headers=list(record.headers)
                    )
                    self._waiting.remove(entry)
                    self.tell("duplicates", topic=record.topic, id=_header(record, "ce_id"))


class LateReplies(_Intruder):
    """Answers a command once more, under a new message id: no record of handled ids recognises that."""

    async def act(self) -> None:
        topics = [topic for topic in TOPICS if topic.endswith(".replies")]
        async with self.producer() as producer, self.reader(topics) as reader:
            while True:
                for record in await self.read(reader, 100):
                    # Its own inventions are not repeated: each would bring the next one.
                    if _header(record, "ce_forged") or self.dice.random() > 0.3:
                        continue
                    forged = str(uuid.uuid4())
                    headers = [(n, v) for n, v in record.headers if n != "ce_id"]
                    headers += [("ce_id", forged.encode()), ("ce_forged", b"1")]
                    self.tell("late-replies", id=forged, topic=record.topic)
                    await producer.send_and_wait(
                        record.topic, record.value, record.key, partition=record.partition, headers=headers
                    )


class Poison(_Intruder):
    """Sends what cannot be decoded, now and then, to a channel that is read."""

    async def act(self) -> None:
        async with self.producer() as producer:
            while True:
                await asyncio.sleep(self.dice.uniform(0.5, 2.0))
                subscription = self.dice.choice([s for s in SUBSCRIPTIONS if s["deduplicates"]])
                topic = self.dice.choice(subscription["topics"])
                forged = str(uuid.uuid4())
                headers = [("ce_id", forged.encode()), ("ce_type", b"ftgo.nobody.Knows"), ("ce_messagekind", b"event")]
                self.tell("poison", id=forged, topic=topic)
                await producer.send_and_wait(topic, b"{broken", forged.encode(), headers=headers)


class RebalanceStorm(_Intruder):
    """A foreign member joins the services' groups, takes its share of the partitions, and leaves; again and again for
    some seconds, with pauses. It commits nothing."""

    session = 60.0

    async def act(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(8, 20))
            subscription = self.dice.choice(SUBSCRIPTIONS)
            self.tell("rebalance", group=subscription["consumer"])
            for _ in range(self.dice.randint(1, 3)):
                stranger = AIOKafkaConsumer(
                    *subscription["topics"],
                    bootstrap_servers=self.bootstrap,
                    group_id=subscription["consumer"],
                    enable_auto_commit=False,
                )
                try:
                    # Inside: a member whose start was broken off would go on beating its heart, and keep partitions.
                    await stranger.start()
                    await stranger.getmany(timeout_ms=int(self.dice.uniform(300, 1500)), max_records=1)
                finally:
                    await _stop(stranger)
            self.tell("rebalance", "heal", group=subscription["consumer"])


async def _stop(client: Any) -> None:
    """Within 3 s: a producer waits for its acknowledgements, and a broker that is away gives none."""
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.wait({stopping}, timeout=3)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


def _header(record: Any, name: str) -> str | None:
    return next((value.decode() for n, value in record.headers if n == name), None)
