"""How far a consumer is behind the ends of its partitions, told from what its client knows; the broker is asked only
where that is old."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from ftgo_messaging.transports.kafka.positions import Positions

_POSITION_SECONDS = 0.1
_FRESH_SECONDS = 2.0
"""While a consumer waits for records, a fetch is answered twice a second."""
_ENDS_SECONDS = 1.0


@dataclass(slots=True)
class Lag:
    """``of`` those partitions of which it is known. ``passed``: where partitions stand behind what is no message (the
    markers of a transactional producer, the gaps of a compacted topic), although nothing was handled there.
    ``last_fetch`` is the time of the newest answer to a fetch, in seconds since 1970."""

    of: dict[TopicPartition, int] = field(default_factory=dict)
    passed: dict[TopicPartition, int] = field(default_factory=dict)
    last_fetch: float = 0.0


async def measure(consumer: Any, positions: Positions, all_handled: Callable[[], bool]) -> Lag:
    """``all_handled``: whether just now nothing is at work that the client has handed out. Its own position counts
    then, and it moves over what is no message, too."""
    lag = Lag()
    for partition in consumer.assignment():
        with _what_passes():
            lag.last_fetch = max(lag.last_fetch, (consumer.last_poll_timestamp(partition) or 0) / 1000)
    # While a batch is handled nothing is fetched, and the ends would be those of its fetch, however long it takes.
    old = time.time() - lag.last_fetch > _FRESH_SECONDS
    asked = await _ask_for_ends(consumer) if old else {}
    for partition in consumer.assignment():
        with _what_passes():
            end = asked.get(partition) if old else consumer.highwater(partition)
            if end is None:
                continue
            handled = positions.get(partition)
            if handled is None or all_handled():
                async with asyncio.timeout(_POSITION_SECONDS):
                    position = await consumer.position(partition)
                if handled is None:
                    handled = position  # nothing since the assignment: it stands where the group's offset is
                elif all_handled() and position > handled:
                    lag.passed[partition] = handled = position
            lag.of[partition] = max(0, end - handled)
    return lag


def _what_passes() -> contextlib.suppress:
    """A rebalance, a client that is closed, a broker that is away: known again next time."""
    return contextlib.suppress(IllegalStateError, AssertionError, TimeoutError, KafkaError, AttributeError)


async def _ask_for_ends(consumer: Any) -> dict[TopicPartition, int]:
    with _what_passes():
        async with asyncio.timeout(_ENDS_SECONDS):
            found: dict[TopicPartition, int] = await consumer.end_offsets(list(consumer.assignment()))
            return found
    return {}
