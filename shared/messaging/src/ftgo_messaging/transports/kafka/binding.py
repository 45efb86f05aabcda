"""A record of Kafka and ours: CloudEvents' binding for Kafka, in binary mode, and where a record stands."""

from collections.abc import Iterable, Mapping
from typing import Any

from ftgo_messaging.transports.cloudevents import from_wire, to_wire
from ftgo_messaging.transports.port import Record

PREFIX = "ce_"


def to_kafka(headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """The headers of a message as Kafka carries them."""
    return [(name, value.encode()) for name, value in to_wire(headers, PREFIX)]


def from_kafka(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """The headers of Kafka's record as those of a message."""
    return from_wire(headers, PREFIX)


def lane_of_partition(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def origin_of(record: Any) -> str:
    return f"{lane_of_partition(record.topic, record.partition)}@{record.offset}"


def record_of(record: Any, defect: str = "") -> Record:
    return Record(record.topic, record.key, from_kafka(record.headers), record.value, origin_of(record), defect)
