"""What a consumer does with records that it has in hand when a rebalance begins."""

from typing import Any

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaConnectionError
from ftgo_messaging.transports.kafka.reading import Reading


class Rebalanced:
    """A client whose partitions are given up while more records are asked for."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.reading: Any = None

    async def getone(self) -> ConsumerRecord[bytes, bytes]:
        return ConsumerRecord("topic", 0, 7, 0, 0, b"key", b"{}", None, 3, 2, ())

    async def getmany(self, **_: object) -> dict[Any, Any]:
        self.reading.revocations += 1
        if self.error:
            raise self.error
        return {}


@pytest.mark.parametrize("error", [None, KafkaConnectionError("no coordinator")])
async def test_what_was_read_before_a_rebalance_is_left_to_the_next_owner(error: Exception | None) -> None:
    client = Rebalanced(error)
    # There is nothing that could handle a record, commit an offset or note a position.
    nothing: Any = None
    client.reading = reading = Reading("consumer", nothing, nothing, nothing, max_records=10)
    assert await reading.next_record(client) is not None
    await reading.take(client)
    assert reading.idle.is_set()
    assert reading.attempts == 0
