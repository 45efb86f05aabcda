"""How far a consumer is behind the ends of its partitions, told from what its client knows without asking."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from ftgo_messaging.kafka.positions import Positions

_POSITION_SECONDS = 0.1


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
        with contextlib.suppress(IllegalStateError, AssertionError, TimeoutError, KafkaError, AttributeError):
            lag.last_fetch = max(lag.last_fetch, (consumer.last_poll_timestamp(partition) or 0) / 1000)
            end = consumer.highwater(partition)
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
