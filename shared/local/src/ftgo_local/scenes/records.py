"""Looking into a Kafka topic, and putting records there, as an operator or an attacker would."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

if TYPE_CHECKING:
    from ftgo_local.scenes.tap import Heard

Record: TypeAlias = "ConsumerRecord[Any, Any]"


def headers_of(record: "Record | Heard") -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def body_of(record: "Record | Heard") -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(record.value or b"null")
    return body


class Topic:
    """A topic from a point in time on: ``mark`` remembers where it ends now, ``find`` reads from there."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.name = name
        self._bootstrap = bootstrap
        self._marks: dict[TopicPartition, int] = {}

    async def mark(self) -> "Topic":
        async with AIOKafkaConsumer(self.name, bootstrap_servers=self._bootstrap) as consumer:
            self._marks = await consumer.end_offsets(sorted(consumer.assignment()))
        return self

    @property
    def partitions(self) -> list[int]:
        return [p.partition for p in self._marks]

    async def find(self, wanted: Callable[[Record], bool], *, within: float = 15.0) -> Record:
        """The first record since the mark that is wanted. Raises TimeoutError."""
        async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap) as consumer, asyncio.timeout(within):
            consumer.assign(list(self._marks))
            for partition, offset in self._marks.items():
                consumer.seek(partition, offset)
            while True:
                record: Record = await consumer.getone()
                if wanted(record):
                    return record

    async def put(
        self, key: bytes | None, headers: Mapping[str, str], value: bytes | None, partition: int | None = None
    ) -> None:
        """Publish a record and wait until Kafka has it."""
        pairs = [(name, text.encode()) for name, text in headers.items()]
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
            await producer.send_and_wait(self.name, value, key=key, headers=pairs, partition=partition)

    async def put_again(self, record: Record, **changed_headers: str) -> None:
        """The same record once more, to the same partition, with the headers given changed."""
        await self.put(record.key, headers_of(record) | changed_headers, record.value, record.partition)
