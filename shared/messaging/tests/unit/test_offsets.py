"""What a consumer tells Kafka about a partition that it has, has had, or takes again."""

from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transports.kafka.positions import rewind_batch
from ftgo_messaging.transports.kafka.subscriber import ChannelConsumer, _Listener
from sqlalchemy.ext.asyncio import create_async_engine

EVENTS = Channel("offsets.events", Kind.EVENT)
FIRST, SECOND = (TopicPartition(EVENTS.name, partition) for partition in range(2))


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
    engine = create_async_engine("postgresql+asyncpg://nowhere")
    consumer = ChannelConsumer("offsets", [EVENTS], MessageHandlers("offsets"), Transactions(engine, "test"), "nowhere")
    offsets, positions, client = consumer._offsets, consumer._reading.positions, Client()
    positions.move({FIRST: 5})
    offsets.handled({FIRST: 5}, client)
    await _Listener(consumer).on_partitions_assigned({FIRST, SECOND})
    offsets.handled({SECOND: 7}, client)
    await offsets.commit(client)
    assert client.committed == [{SECOND: 7}]
    assert positions.get(FIRST) is None


def test_a_failed_batch_is_taken_again_in_every_partition_of_it() -> None:
    client = Client()
    rewind_batch(client, [record(FIRST, 3), record(SECOND, 8), record(FIRST, 4), record(SECOND, 9)])
    assert client.sought == {FIRST: 3, SECOND: 8}
