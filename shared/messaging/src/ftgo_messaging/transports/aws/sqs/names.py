"""Names of queues, which say all there is to know of a channel: ``CHANNEL--12-lanes.fifo`` for the channel itself, and
``CHANNEL--CONSUMER--3.fifo`` for a lane of a consumer. SQS takes 80 letters, digits, ``-`` and ``_``."""

import re
from hashlib import sha256

_PLAIN = re.compile(r"(?!.*--)[A-Za-z0-9.-]{1,32}(?<!-)")
_LONGEST = 32


def token(name: str) -> str:
    """A channel's or consumer's name as a part of a queue's: the same, with ``_`` for a dot, where that is possible;
    otherwise its beginning and a hash."""
    if _PLAIN.fullmatch(name) and not name.startswith("-"):
        return name.replace(".", "_")
    beginning = re.sub(r"[^A-Za-z0-9]+", "_", name)[: _LONGEST - 13]
    return f"{beginning}-{sha256(name.encode()).hexdigest()[:12]}"


def prefix_of(channel: str) -> str:
    """With which the names of all queues of a channel begin, and of no other."""
    return f"{token(channel)}--"


def channel_queue(channel: str, lanes: int) -> str:
    """Nothing is ever in it: that it is there says that the channel was declared, with so many lanes."""
    return f"{prefix_of(channel)}{lanes}-lanes.fifo"


def lane_queue(channel: str, consumer: str, lane: int) -> str:
    return f"{prefix_of(channel)}{token(consumer)}--{lane}.fifo"
