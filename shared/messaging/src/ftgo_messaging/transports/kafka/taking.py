"""Takes records from Kafka's client: one that is waited for, and what else has been fetched by then."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.transports.kafka.bounds import TAKEN_BYTES, relieved, size_of

log = structlog.get_logger("ftgo.kafka")


async def first_record(client: Any, wait: float) -> Any:
    """Raises TimeoutError after so many seconds, and whatever the client raises."""
    async with asyncio.timeout(wait):
        with contained():
            return relieved(client, await client.getone())


async def taken_along(client: Any, first: Any, most: int, revocations: Callable[[], int], consumer: str) -> list[Any]:
    """The first record, and what has been fetched, within the bounds. Nothing when partitions were revoked meanwhile:
    whoever has them now reads from the committed offset.

    One by one: of packed records nobody knows the size before, and what cannot be read costs no other then."""
    records, room = [first], TAKEN_BYTES - size_of(first)
    while len(records) < most and room > 0:
        before = revocations()
        try:
            with contained():
                # During a rebalance this waits for the new assignment.
                found = await client.getmany(timeout_ms=0, max_records=1)
        except Exception as error:
            log.warning("consumer.fetch_failed", consumer=consumer, error=repr(error))
            found = {}  # it will come first
        if revocations() != before:
            records.clear()
        if not found:
            break
        _, one = found.popitem()
        records.append(relieved(client, one.pop()))
        room -= size_of(records[-1])
    return records
