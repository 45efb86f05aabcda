"""How much of its topics the groups have not committed yet, asked of the broker from outside of these groups."""

from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ftgo_messaging.transports.kafka.binding import lane_of_partition
from ftgo_messaging.transports.lanes import names_of


async def unread(bootstrap: str, readers: Mapping[str, Collection[str]], lanes: int) -> dict[str, int | None]:
    """For each lane of these channels. A group that has committed nothing begins at the beginning of what is kept.

    The ends are asked for first: what is committed by then counts, whatever comes meanwhile."""
    found: dict[str, int | None] = dict.fromkeys(names_of(readers, lanes), 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        there = sorted(set(await admin.list_topics()) & {channel for channel, groups in readers.items() if groups})
        if not there:
            return found
        partitions = [
            TopicPartition(topic["topic"], each["partition"])
            for topic in await admin.describe_topics(there)
            for each in topic["partitions"]
        ]
        begins, ends = await _bounds(bootstrap, partitions)
        for group in sorted({group for channel in there for group in readers[channel]}):
            committed = await admin.list_consumer_group_offsets(group)
            for partition in partitions:
                if group in readers[partition.topic]:
                    at = committed[partition].offset if partition in committed else -1
                    lane = lane_of_partition(*partition)
                    found[lane] = (found.get(lane) or 0) + max(0, ends[partition] - max(at, begins[partition]))
    finally:
        await admin.close()
    return found


_Offsets = dict[TopicPartition, int]


async def _bounds(bootstrap: str, partitions: list[TopicPartition]) -> tuple[_Offsets, _Offsets]:
    """Where these partitions begin and end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        await consumer.start()
        return await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
