"""The job that creates the topics: ``python -m ftgo_contracts.create_topics``. Running it again changes nothing, and it
waits for a Kafka that is not there yet (``ftgo_messaging.runtime.waiting``)."""

import asyncio
import os
import sys

from ftgo_messaging.runtime.waiting import NotThere, wait_for
from ftgo_messaging.transports.kafka.reach import CURE, REFUSALS, passes, reach
from ftgo_messaging.transports.kafka.topics import PARTITIONS, WrongPartitions, ensure_topics

from ftgo_contracts.channels import ALL_CHANNELS


def main() -> None:
    """Exit code 2 with a sentence when the environment is wrong, 1 with one when Kafka refuses or never comes."""
    bootstrap = os.environ.get("FTGO_KAFKA_BOOTSTRAP", "")
    replication = os.environ.get("FTGO_KAFKA_REPLICATION", "1")
    if not bootstrap:
        _refuse("FTGO_KAFKA_BOOTSTRAP: the address of a Kafka broker is needed, e.g. 127.0.0.1:9092")
    if not replication.isdecimal() or int(replication) < 1:
        _refuse(f"FTGO_KAFKA_REPLICATION: a number of brokers from 1, not {replication!r}")
    names = [c.name for c in ALL_CHANNELS]

    async def create() -> list[str]:
        await reach(bootstrap)
        return await ensure_topics(bootstrap, names, PARTITIONS, replication_factor=int(replication))

    waiting = wait_for(
        f"Kafka at {bootstrap}", create, CURE, passes=passes, refusals=(*REFUSALS, WrongPartitions), each=30
    )
    try:
        created = asyncio.run(waiting)
    except NotThere as error:
        sys.exit(str(error))
    print(f"topics: {len(created)} created, {len(names) - len(created)} were there")


def _refuse(why: str) -> None:
    sys.stderr.write(f"{why}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
