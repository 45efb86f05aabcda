"""How much of the topics a consumer has in memory at once, whatever stands in them.

The client's own limits are per partition, and count packed bytes: with 36 partitions full of large records it would
keep 36 MB, and unpack them all for one batch. Here a consumer has at most one answer of each broker (``FETCHED_BYTES``,
packed), one unpacked batch of the sender's (``codecs.MOST_BYTES``), and the records that it handles (``TAKEN_BYTES``).
"""

from typing import Any

FETCHED_BYTES = 1_000_000
"""Of one answer of a broker, for all partitions. A batch that is larger comes alone."""

TAKEN_BYTES = 1_000_000
"""Of the records that are handled together. The last one may go beyond it."""

_NEVER = 3600.0


def size_of(record: Any) -> int:
    """Its bytes: key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def fetch_no_more_than_one_answer(consumer: Any) -> None:
    """aiokafka asks a broker for more when records of it have waited for 0.1 s, again and again while a batch is
    handled. From now on it asks when all are taken."""
    fetcher = getattr(consumer, "_fetcher", None)
    if fetcher is not None:  # the client is not closed meanwhile
        fetcher._prefetch_backoff = _NEVER
