"""Where a consumer stands in each of its partitions: behind what it has handled, not behind what it has fetched."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError


class Positions:
    """The offset that is to be handled next, for each partition that was read since the last assignment."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}

    def get(self, partition: TopicPartition) -> int | None:
        """None when nothing of it was read yet: the client's own position counts then."""
        return self._next.get(partition)

    def begin(self, records: Sequence[Any]) -> None:
        """These records are about to be handled."""
        for partition, offset in _first(records).items():
            self._next.setdefault(partition, offset)

    def handled(self, records: Sequence[Any]) -> dict[TopicPartition, int]:
        """Go on behind these records; returns where that is."""
        offsets: dict[TopicPartition, int] = {}
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            offsets[partition] = max(offsets.get(partition, 0), record.offset + 1)
        self.move(offsets)
        return offsets

    def move(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._next.update(offsets)

    def clear(self) -> None:
        """Other partitions now, or the same from their committed offsets."""
        self._next.clear()


def rewind_batch(consumer: Any, records: Sequence[Any]) -> None:
    """Every partition of the batch, not just the first record's: the others would be committed past."""
    for partition, offset in _first(records).items():
        try:
            consumer.seek(partition, offset)
        except IllegalStateError:
            continue  # revoked meanwhile: its next owner starts at the committed offset


def _first(records: Sequence[Any]) -> dict[TopicPartition, int]:
    first: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        first[partition] = min(first.get(partition, record.offset), record.offset)
    return first
