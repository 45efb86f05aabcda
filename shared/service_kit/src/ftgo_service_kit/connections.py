"""Which connections a process keeps when there are too many, and for how long a client may take.

A connection *works* while a complete request of it is carried out: nobody interrupts that. Otherwise it *waits* for
its client: for a request, or for the rest of one. The bounds are kept at the cost of those that have waited longest, so
that slow clients crowd out each other, and whoever sends a request in one go is served.
"""

import time
from collections import Counter
from typing import Protocol

import prometheus_client

MAX_UNREAD = 16 * 1024 * 1024
"""Bytes of answers, in all, that wait in the process because their clients do not read."""
UNREAD_SECONDS = 30
MAX_HELD = 8 * 1024 * 1024
"""Bytes of incomplete requests, in all."""
REFUSING_SECONDS = 10
"""For how long after a refusal readiness speaks of it."""

OPEN = prometheus_client.Gauge("ftgo_http_connections", "Connections that are open")
CLOSED = prometheus_client.Counter(
    "ftgo_http_connections_closed_total", "Connections closed before their clients had done", ["why"]
)
REFUSED = prometheus_client.Counter(
    "ftgo_http_connections_refused_total", "New connections refused: all that are open have requests in progress"
)


class Connection(Protocol):
    """What is asked of a connection."""

    address: str
    deadline: float
    """In seconds of ``time.monotonic()``: until when it may wait."""
    held: int
    """Bytes of its incomplete request."""

    @property
    def unread(self) -> int:
        """Bytes of answers that wait until the client reads."""
        ...

    def give_up(self, timeout: bool) -> None:
        """Say so, where something was asked, and close: the client was too slow, or the place is needed."""
        ...

    def abort(self) -> None:
        """Close without waiting for anything to be read."""
        ...


class Connections:
    """All connections of a process. The dictionaries are ordered sets: who waits longest comes first."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self.limit = limit
        self._limit_per_address = limit_per_address
        self._open: dict[Connection, None] = {}
        self._waiting: dict[Connection, None] = {}
        self._unread: dict[Connection, tuple[float, int]] = {}  # since when, and how much it was then
        self._unread_bytes = 0
        self._addresses: Counter[str] = Counter()
        self._held = 0
        self._closed: Counter[str] = Counter()
        self._refused = 0
        self._refused_at = -float("inf")
        OPEN.set_function(lambda: len(self._open))

    def describe(self) -> dict[str, object]:
        """For readiness. A process that refuses is still ready: another one would be attacked as well."""
        return {
            "connections": len(self._open),
            "limit": self.limit,
            "closed": dict(self._closed),
            "refused": self._refused,
            "refusing": time.monotonic() - self._refused_at < REFUSING_SECONDS,
        }

    def admit(self, new: Connection) -> bool:
        """Make room for it. False when everybody works: it is to be refused."""
        crowded = self._addresses[new.address] >= self._limit_per_address
        if (crowded or len(self._open) >= self.limit) and not self._make_room(new.address if crowded else None):
            REFUSED.inc()
            self._refused += 1
            self._refused_at = time.monotonic()
            return False
        self._open[new] = None
        self._addresses[new.address] += 1
        return True

    def _make_room(self, address: str | None) -> bool:
        oldest = next((c for c in self._waiting if address in {None, c.address}), None)
        if oldest is not None:
            self._close(oldest, "room")
        return oldest is not None

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self.work(connection)
        self.read_on(connection)
        if connection not in self._open:
            return  # was refused
        del self._open[connection]
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]

    def work(self, connection: Connection) -> None:
        """Its request is complete: it is left in peace, and holds nothing any more."""
        self._waiting.pop(connection, None)
        self._held -= connection.held
        connection.held = 0

    def wait(self, connection: Connection, seconds: float) -> None:
        """It waits for its client, and was in another state before."""
        self.work(connection)
        connection.deadline = time.monotonic() + seconds
        self._waiting[connection] = None

    def hold(self, connection: Connection, held: int) -> None:
        """So much of its request is here by now."""
        self._held += held - connection.held
        connection.held = held
        while self._held > MAX_HELD:
            self._close(next(c for c in self._waiting if c.held), "bytes")

    def stop_reading(self, connection: Connection) -> None:
        """Its client does not read as fast as it is answered."""
        if connection in self._unread:
            return
        self._unread[connection] = (time.monotonic(), connection.unread)
        self._unread_bytes += connection.unread
        while self._unread_bytes > MAX_UNREAD:
            self._abort(next(iter(self._unread)))

    def read_on(self, connection: Connection) -> None:
        """Its client has read."""
        _, unread = self._unread.pop(connection, (0, 0))
        self._unread_bytes -= unread

    def sweep(self) -> None:
        """Close whoever is late. Every second."""
        now = time.monotonic()
        for late in [c for c in self._waiting if c.deadline < now]:
            self._close(late, "late")
        for connection in list(self._open):
            # Also a little that is left, of an event stream or of a connection that is being closed.
            if not connection.unread:
                self.read_on(connection)
            elif connection not in self._unread:
                self.stop_reading(connection)
        for connection in [c for c, (since, _) in self._unread.items() if since < now - UNREAD_SECONDS]:
            self._abort(connection)

    def _close(self, connection: Connection, why: str) -> None:
        self._count(why)
        self.work(connection)
        connection.give_up(timeout=why == "late")

    def _abort(self, connection: Connection) -> None:
        self._count("unread")
        self.read_on(connection)
        connection.abort()

    def _count(self, why: str) -> None:
        CLOSED.labels(why).inc()
        self._closed[why] += 1
