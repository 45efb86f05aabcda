"""Notices that two processes use one name for their static membership of a consumer group."""

import time
from collections import deque

_CHANGES = 4


class Membership:
    """A static member keeps its member id. Losing it again and again means that somebody else has the name: each of
    the two takes the other's place at every heartbeat."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ids: deque[tuple[float, str]] = deque(maxlen=_CHANGES)

    def joined(self, member_id: str) -> None:
        """The group has assigned partitions to this member id; empty when it is not known."""
        if member_id and (not self._ids or self._ids[-1][1] != member_id):
            self._ids.append((time.monotonic(), member_id))

    @property
    def contested(self) -> bool:
        """Four member ids within so many seconds."""
        return len(self._ids) == _CHANGES and self._ids[-1][0] - self._ids[0][0] < self._seconds
