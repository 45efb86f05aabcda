"""Topics are created by a job, with a fixed number of partitions, never by the broker on first use."""

import asyncio
import itertools
from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from ftgo_messaging.runtime.loops import backoff
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses

PARTITIONS = LANES

_TOPIC_EXISTS = 36


class WrongPartitions(BrokerRefuses):
    """A topic exists with another number of partitions than declared."""


async def ensure_topics(
    bootstrap: str, names: Iterable[str], partitions: int = PARTITIONS, replication_factor: int = 1
) -> list[str]:
    """Create the missing topics; returns their names. Raises WrongPartitions when an existing one differs."""
    wanted = sorted(set(names))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [n for n in wanted if n not in existing]
        if missing:
            topics = [NewTopic(n, num_partitions=partitions, replication_factor=replication_factor) for n in missing]
            response = await admin.create_topics(topics)
            for name, code, *detail in response.topic_errors:
                if code not in {0, _TOPIC_EXISTS}:
                    raise for_code(code)(f"topic {name}: {detail}")
            await _wait_for(admin, missing)
        present = [n for n in wanted if n in existing]
        for topic in await admin.describe_topics(present) if present else []:
            count = len(topic["partitions"])
            if count != partitions:
                raise WrongPartitions(
                    f"topic {topic['topic']} has {count} partitions, declared are {partitions}: "
                    "create a new topic and move to it, or start from an empty Kafka (ftgo reset)"
                )
    finally:
        await admin.close()
    return missing


async def _wait_for(admin: AIOKafkaAdminClient, topics: list[str]) -> None:
    """Until the broker tells their partitions and leaders to everybody. Raises TimeoutError after 30 s."""
    async with asyncio.timeout(30):
        for attempt in itertools.count(1):
            found = await admin.describe_topics(topics)
            if all(x["partitions"] and all(p["leader"] >= 0 for p in x["partitions"]) for x in found):
                return
            await asyncio.sleep(backoff(attempt, first=0.02, longest=0.5))
