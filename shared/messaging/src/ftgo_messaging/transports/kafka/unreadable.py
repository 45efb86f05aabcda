"""Records that the client cannot read: a codec that it lacks, a checksum, a header name that is not UTF-8.

aiokafka raises for them, does not say where, and would raise for ever. Here the batch is found, and read by ourselves
as far as that goes. The broker accepts whatever has the right form, so anybody can send such records.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from ftgo_messaging.transports.kafka.record_batch import first_batch

_WAIT_MS = 100


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands at the next offset of a partition. ``records`` are those from there to the end of the batch, told
    apart although the client cannot; ``error`` is empty then. Otherwise ``records`` is one, whose body is the whole
    batch as it came, and ``error`` names cause and place. Go on at ``end``."""

    partition: TopicPartition
    end: int
    records: Iterator[ConsumerRecord[bytes, bytes]]
    error: str
    cause: str


class WrongChecksum(Exception):
    """The bytes are not those that were sent."""


async def find_unreadable(consumer: Any) -> Unreadable | None:
    """The first one in any of the partitions; None when all can be read. Every partition stands exactly at its next
    record. Raises KafkaError."""
    for partition in consumer.assignment():
        offset = await consumer.position(partition)
        if consumer.highwater(partition) == offset:
            continue
        fetched = await _fetch(consumer, partition, offset)
        # A batch may hold a million records of a few bytes: the event loop must not stand meanwhile.
        if fetched and (found := await asyncio.to_thread(_examine, partition, fetched, offset)) is not None:
            return found
    return None


async def _fetch(consumer: Any, partition: TopicPartition, offset: int) -> bytes:
    """The batch at this offset, perhaps with more behind it: the broker sends a whole one however small the limit."""
    client = consumer._client
    topics = [(partition.topic, [(partition.partition, offset, 1)])]
    leader = client.cluster.leader_for_partition(partition)
    response = await client.send(leader, FetchRequest(_WAIT_MS, 1, 1, 0, topics))
    ((_, ((_, code, *_, fetched),)),) = response.topics
    if code:
        raise for_code(code)(f"{partition.topic}/{partition.partition} at {offset}")
    return bytes(fetched or b"")


def _examine(partition: TopicPartition, fetched: bytes, offset: int) -> Unreadable | None:
    error = _error_of(_as_the_client_does, fetched)
    if error is None:
        return None
    batch = first_batch(partition, fetched)
    end = max(batch.last, offset) + 1
    cause = f"{type(error).__name__}: {error}"
    if not isinstance(error, WrongChecksum) and _error_of(batch.records) is None:
        return Unreadable(partition, end, (r for r in batch.records() if r.offset >= offset), "", cause)
    place = f"{partition.topic}/{partition.partition}, offsets {offset} to {end - 1}"
    text = (
        f"Kafka's client cannot read a batch of records (compression: {batch.codec}): {cause}. "
        f"It stands in Kafka at {place}, as long as the topic keeps it; the body of this letter is the batch"
    )
    whole = ConsumerRecord(*partition, offset, -1, -1, None, batch.raw, None, -1, len(batch.raw), ())
    return Unreadable(partition, end, iter([whole]), text, cause)


def _as_the_client_does(fetched: bytes) -> Iterable[object]:
    batch = MemoryRecords(fetched).next_batch()
    if batch is None:
        return ()
    if not batch.validate_crc():
        raise WrongChecksum("the checksum is not that of the bytes")
    records: Iterable[object] = batch
    return records


def _error_of(read: Callable[..., Iterable[object]], *arguments: object) -> BaseException | None:
    try:
        for _ in read(*arguments):
            pass
    except BaseException as error:  # the panic of a library in another language is no Exception
        return error.with_traceback(None)  # with it, the batch would stay in memory, unpacked
    return None
