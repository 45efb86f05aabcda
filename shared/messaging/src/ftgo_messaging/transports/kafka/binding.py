"""CloudEvents' binding for Kafka, in binary mode."""

from collections.abc import Iterable, Mapping

from ftgo_messaging.transports.cloudevents import from_wire, to_wire

PREFIX = "ce_"


def to_kafka(headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """The headers of a message as Kafka carries them."""
    return [(name, value.encode()) for name, value in to_wire(headers, PREFIX)]


def from_kafka(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """The headers of Kafka's record as those of a message."""
    return from_wire(headers, PREFIX)
