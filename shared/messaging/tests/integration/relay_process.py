"""A relay as a process of its own: relay_process.py KIND DSN BOOTSTRAP LEASE_SECONDS INDEX OF. Prints its owner id."""

import asyncio
import sys

from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from sqlalchemy.ext.asyncio import create_async_engine


async def main(kind: str, dsn: str, bootstrap: str, lease: float, index: int, of: int) -> None:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"))
    publisher = KafkaPublisher(bootstrap, f"relay-{index}-of-{of}")
    relay: PollingPublisher | LogTailing
    if kind == "polling":
        relay = PollingPublisher(
            engine, publisher, WakeUp(), batch=50, interval=0.1, lease_seconds=lease, index=index, of=of
        )
    else:
        relay = LogTailing(
            engine, publisher, WakeUp(), service="contract", batch=50, lease_seconds=lease, index=index, of=of
        )
    print(relay.lease.owner, flush=True)
    async with asyncio.timeout(100):  # whatever the test does, it ends by itself
        await relay.run()


if __name__ == "__main__":
    kind, dsn, bootstrap, lease, index, of = sys.argv[1:]
    asyncio.run(main(kind, dsn, bootstrap, float(lease), int(index), int(of)))
