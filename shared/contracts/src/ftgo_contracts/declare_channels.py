"""The job that makes the channels at the broker: ``python -m ftgo_contracts.declare_channels``. Running it again
changes nothing, and it waits for a broker that is not there yet (``ftgo_messaging.runtime.waiting``)."""

import asyncio
import os
import sys
from typing import NoReturn
from urllib.parse import urlsplit

from ftgo_messaging import BrokerRefuses, transport_at
from ftgo_messaging.runtime.waiting import NotThere, wait_for

from ftgo_contracts.channels import ALL_CHANNELS, READERS

CURE = "Is it up, and is FTGO_BROKER_URL (for Kafka also FTGO_KAFKA_BOOTSTRAP) its address?"


def main() -> None:
    """Exit code 2 with a sentence when the environment is wrong, 1 with one when the broker refuses or never comes."""
    url = _broker_url()
    try:
        transport = transport_at(url)
    except BrokerRefuses as error:
        _refuse(f"FTGO_BROKER_URL: {error}")
    where = f"{transport.traits.name} at {urlsplit(url).netloc.rpartition('@')[2]}"

    async def declare() -> list[str]:
        return list(
            await wait_for(
                where, lambda: transport.declare(ALL_CHANNELS, READERS), CURE, refusals=(BrokerRefuses,), each=30
            )
        )

    try:
        made = asyncio.run(declare())
    except NotThere as error:
        sys.exit(str(error))
    print(f"channels: {len(made)} made, {len(ALL_CHANNELS) - len(made)} were there")


def _broker_url() -> str:
    url = os.environ.get("FTGO_BROKER_URL", "")
    if url:
        return url
    bootstrap = os.environ.get("FTGO_KAFKA_BOOTSTRAP", "")
    copies = os.environ.get("FTGO_KAFKA_REPLICATION", "1")
    if not bootstrap:
        _refuse("FTGO_BROKER_URL: the address of a broker is needed, e.g. kafka://127.0.0.1:9092")
    if not copies.isdecimal() or int(copies) < 1:
        _refuse(f"FTGO_KAFKA_REPLICATION: a number of brokers from 1, not {copies!r}")
    return f"kafka://{bootstrap}?copies={copies}"


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"{why}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
