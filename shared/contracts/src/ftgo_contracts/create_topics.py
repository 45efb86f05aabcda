"""The job that creates the topics: ``python -m ftgo_contracts.create_topics``. Running it again changes nothing."""

import asyncio
import os

from ftgo_messaging.kafka.topics import PARTITIONS, ensure_topics

from ftgo_contracts.channels import ALL_CHANNELS


def main() -> None:
    bootstrap = os.environ["FTGO_KAFKA_BOOTSTRAP"]
    replication = int(os.environ.get("FTGO_KAFKA_REPLICATION", "1"))
    created = asyncio.run(
        ensure_topics(bootstrap, [c.name for c in ALL_CHANNELS], PARTITIONS, replication_factor=replication)
    )
    print(f"topics: {len(created)} created, {len(ALL_CHANNELS) - len(created)} were there")


if __name__ == "__main__":
    main()
