"""Kafka: its log is there to be read, from offset 0, in no group."""

from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from topology import LANES

from wires import Raw
from wires.common import ended

_PREFIX = "ce_"


class KafkaWire:
    keeps = "every topic from offset 0, in no group: the raw log"
    exact = True
    trouble = (KafkaError, OSError, TimeoutError)

    def __init__(self, url: str) -> None:
        self.bootstrap = urlsplit(url).netloc

    async def bind(self) -> None:
        """Kafka keeps everything by itself."""

    async def everything(self, topics: Iterable[str]) -> AsyncIterator[Raw]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for topic in topics for number in range(LANES)]
            ends = await consumer.end_offsets(partitions)
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            waiting = {p for p in partitions if ends[p] > 0}
            while waiting:
                for records in (await consumer.getmany(timeout_ms=1000, max_records=2000)).values():
                    for record in records:
                        yield _raw(record)
                waiting = {p for p in waiting if await consumer.position(p) < ends[p]}
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def listen(self, topics: Sequence[str], positions: MutableMapping[Any, Any]) -> AsyncIterator["_Ear"]:
        """Reads in no group, from the first record on, and after a trouble from where it was."""
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(LANES)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        try:
            await consumer.start()
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, positions.get(partition, 0))
            yield _Ear(consumer, positions)
        finally:
            await stop(consumer)

    @asynccontextmanager
    async def speak(self) -> AsyncIterator["_Voice"]:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", request_timeout_ms=10_000)
        try:
            await producer.start()
            yield _Voice(producer)
        finally:
            await stop(producer)

    async def lags(self) -> dict[str, int]:
        """Over the partitions for which a group has ever committed an offset."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        try:
            await admin.start()
            await consumer.start()
            result = {}
            for name in [group[0] for group in await admin.list_consumer_groups()]:
                offsets = await admin.list_consumer_group_offsets(name)
                ends = await consumer.end_offsets(list(offsets)) if offsets else {}
                result[name] = sum(max(0, ends[p] - max(0, o.offset)) for p, o in offsets.items())
            return result
        finally:
            await consumer.stop()
            await admin.close()


class _Ear:
    def __init__(self, consumer: AIOKafkaConsumer, positions: MutableMapping[Any, Any]) -> None:
        self._consumer = consumer
        self._positions = positions

    async def read(self, seconds: float) -> list[Raw]:
        found: list[Raw] = []
        for partition, records in (await self._consumer.getmany(timeout_ms=int(seconds * 1000))).items():
            found += map(_raw, records)
            self._positions[partition] = records[-1].offset + 1
        return found


class _Voice:
    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def again(self, raw: Raw, **changed: str) -> None:
        record, own = raw.native, {_PREFIX + name: value.encode() for name, value in changed.items()}
        headers = [(n, v) for n, v in record.headers if n not in own] + list(own.items())
        await self._producer.send_and_wait(
            record.topic, record.value, record.key, partition=record.partition, headers=headers
        )

    async def put(self, topic: str, key: str, headers: Mapping[str, str], body: bytes) -> None:
        own = [(_PREFIX + name, value.encode()) for name, value in headers.items()]
        await self._producer.send_and_wait(topic, body, key.encode(), headers=own)


def _raw(record: Any) -> Raw:
    headers = {_attribute(name): _text(value) for name, value in record.headers}
    return Raw(record.topic, record.partition, record.offset, _text(record.key), headers, record.value, record)


def _attribute(name: str) -> str:
    """CloudEvents' name, as the outbox has it, of a header in Kafka."""
    return "datacontenttype" if name == "content-type" else name.removeprefix(_PREFIX)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


async def stop(client: Any) -> None:
    """Within 3 s: a producer waits for its acknowledgements, and a broker that is away gives none."""
    await ended(client.stop())
