"""What a consumer tells Kafka about a partition that it has, has had, or takes again."""

from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError
from ftgo_messaging.transports.kafka.positions import rewind_batch
from ftgo_messaging.transports.kafka.subscription import KafkaSubscription, _Listener

FIRST, SECOND = (TopicPartition("offsets.events", partition) for partition in range(2))


class Client:
    """Stands where Kafka's client is."""

    def __init__(self) -> None:
        self.committed: list[dict[TopicPartition, int]] = []
        self.sought: dict[TopicPartition, int] = {}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed.append(dict(offsets))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought[partition] = offset


def record(partition: TopicPartition, offset: int) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(partition.topic, partition.partition, offset, 0, 0, None, b"", None, 0, 0, ())


async def test_what_was_pending_of_the_old_assignment_is_not_committed_in_the_new_one() -> None:
    """The partition was with somebody else meanwhile, who came further: it would be read from there once more. Nor is
    it read on from where this consumer stood."""
    subscription = KafkaSubscription("nowhere", "offsets", ["offsets.events"])
    offsets, positions, client = subscription._offsets, subscription.positions, Client()
    positions.move({FIRST: 5})
    offsets.handled({FIRST: 5}, client)
    await _Listener(subscription).on_partitions_assigned({FIRST, SECOND})
    offsets.handled({SECOND: 7}, client)
    await offsets.commit(client)
    assert client.committed == [{SECOND: 7}]
    assert positions.get(FIRST) is None


class Rebalanced:
    """A client whose partitions are given up while more records are asked for."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.subscription: Any = None

    async def getone(self) -> ConsumerRecord[bytes, bytes]:
        return record(FIRST, 7)

    async def getmany(self, **_: object) -> dict[Any, Any]:
        self.subscription.revocations += 1
        if self.error:
            raise self.error
        return {}


@pytest.mark.parametrize("error", [None, KafkaConnectionError("no coordinator")])
async def test_what_was_read_before_a_rebalance_is_left_to_the_next_owner(error: Exception | None) -> None:
    subscription = KafkaSubscription("nowhere", "offsets", ["offsets.events"])
    client: Any = Rebalanced(error)
    client.subscription, subscription._subscriber.consumer = subscription, client
    assert await subscription.take(10, 1.0) is None
    assert subscription._idle.is_set()
    assert subscription.positions.get(FIRST) is None


def test_a_failed_batch_is_taken_again_in_every_partition_of_it() -> None:
    client = Client()
    rewind_batch(client, [record(FIRST, 3), record(SECOND, 8), record(FIRST, 4), record(SECOND, 9)])
    assert client.sought == {FIRST: 3, SECOND: 8}
