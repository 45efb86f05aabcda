"""How much of the topics a consumer has in memory at once, whatever stands in them.

The client's own limits are per partition, and count packed bytes: with 36 partitions full of large records it would
keep 36 MB, and unpack them all for one batch. Here a consumer has at most one answer of each broker (``FETCHED_BYTES``,
packed), one unpacked batch of the sender's (``codecs.MOST_BYTES``), and the records that it handles (``TAKEN_BYTES``).
"""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from aiokafka import TopicPartition

from ftgo_messaging.messages.message import MOST_HEADERS, size_of_headers

FETCHED_BYTES = 1_000_000
"""Of one answer of a broker, for all partitions. A batch that is larger comes alone."""

TAKEN_BYTES = 1_000_000
"""Of the records that are handled together. The last one may go beyond it."""

_NEVER = 3600.0


def size_of(record: Any) -> int:
    """What it takes in memory, about."""
    return len(record.key or b"") + len(record.value or b"") + size_of_headers(record.headers)


def relieved(consumer: Any, record: Any) -> Any:
    """The record with no more headers than show that they are too many. The client, which holds the others until the
    next record of the partition is asked for, is made to forget them. Does not wait, so there is one such record at a
    time in the whole process."""
    if len(record.headers) <= MOST_HEADERS:
        return record
    partition = TopicPartition(record.topic, record.partition)
    if partition in consumer.assignment():
        consumer.seek(partition, record.offset + 1)
    record = replace(record, headers=record.headers[: MOST_HEADERS + 1])
    gc.collect()  # the client's object refers to itself
    return record


def some_of(records: Iterator[Any], most: int) -> list[Any]:
    """The next ones, so many at most, and as far as the bound goes."""
    taken: list[Any] = []
    room = TAKEN_BYTES
    while len(taken) < most and room > 0 and (record := next(records, None)) is not None:
        taken.append(record)
        room -= size_of(record)
    return taken


def fetch_no_more_than_one_answer(consumer: Any) -> None:
    """aiokafka asks a broker for more when records of it have waited for 0.1 s, again and again while a batch is
    handled. From now on it asks when all are taken."""
    fetcher = getattr(consumer, "_fetcher", None)
    if fetcher is not None:  # the client is not closed meanwhile
        fetcher._prefetch_backoff = _NEVER
