"""Kafka's record batch (version 2) as bytes, read where aiokafka does not: that insists on header names in UTF-8, and
takes the attributes of a record, one byte, for a number of variable length.

https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from aiokafka import ConsumerRecord, TopicPartition

from ftgo_messaging.transports.kafka.codecs import DECODERS
from ftgo_messaging.transports.kafka.varint import varint

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_VERSION = 2


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """``first`` and ``last`` are offsets. The broker has checked the form of what is inside, not its meaning."""

    partition: TopicPartition
    raw: bytes
    first: int
    last: int
    codec: str
    version: int

    def records(self) -> Iterator[ConsumerRecord[bytes, bytes]]:
        """One by one, whatever they hold. Raises what the decompression raises, or ValueError and its like for bytes
        that do not have the form."""
        if self.version != _VERSION:
            raise ValueError(f"record batches of version {self.version} cannot be told apart")
        count = _HEADER.unpack_from(self.raw)[-1]
        data = self.raw[_HEADER.size :]
        if self.codec != "none":
            data = DECODERS[self.codec](data)
        at = 0
        for _ in range(count):
            length, at = varint(data, at)
            yield self._record(data[at : at + length])
            at += length

    def _record(self, data: bytes) -> ConsumerRecord[bytes, bytes]:
        _, at = varint(data, 1)  # behind the attributes; the time is nobody's business
        offset, at = varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = varint(data, at)
        headers = []
        for _ in range(count):
            name, at = _bytes(data, at)
            header, at = _bytes(data, at)
            headers.append(((name or b"").decode(errors="backslashreplace"), header))
        sizes = (-1 if key is None else len(key), -1 if value is None else len(value))
        return ConsumerRecord(*self.partition, self.first + offset, -1, -1, key, value, None, *sizes, tuple(headers))


def first_batch(partition: TopicPartition, raw: bytes) -> RecordBatch:
    """Of what a fetch has brought, which begins with a whole one. Raises struct.error for less than that."""
    first, length, _, version, _, attributes, delta, *_ = _HEADER.unpack_from(raw)
    number = attributes & 7
    codec = _CODECS[number] if number < len(_CODECS) else f"codec {number}"
    last = first + delta if version == _VERSION else first
    return RecordBatch(partition, bytes(raw[: 12 + length]), first, last, codec, version)


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = varint(data, at)
    if length < 0:
        return None, at
    if at + length > len(data):
        raise ValueError(f"{length} bytes are announced, {len(data) - at} are there")
    return data[at : at + length], at + length
