"""The outbox is bounded: when the broker is away for long, new requests are refused before the disk is full.

Counted beside the requests, once a second: a request looks at a flag. Only requests are refused. What comes from the
broker is worked off, and is not much while that is away."""

import structlog
from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.runtime.errors import Overloaded
from ftgo_messaging.runtime.loops import periodic

log = structlog.get_logger("ftgo.outbox")

SPAN = Gauge(
    "ftgo_outbox_span", "Positions between the oldest and the newest row of the outbox; not less than its rows"
)

# Two looks at the primary key. One row that stays behind (a key that cannot be published) widens the span of an outbox
# that is otherwise empty: so a wide span is only a reason to count, and only as far as the limit.
_SPAN = text("SELECT coalesce(max(position) - min(position) + 1, 0) FROM outbox")
_COUNT = text("SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT :limit) AS x")

RETRY_AFTER_SECONDS = 10


class OutboxBound:
    """``limit`` rows are too many. Full once, it opens again below nine tenths of that."""

    def __init__(self, engine: AsyncEngine, limit: int) -> None:
        self.full = False
        self._engine = engine
        self._limit = limit

    def admit(self) -> None:
        """Raises Overloaded when the outbox is full."""
        if self.full:
            raise Overloaded(f"{self._limit} messages wait to be published", retry_after=RETRY_AFTER_SECONDS)

    async def look(self) -> None:
        """Count anew."""
        enough = round(self._limit * 0.9) if self.full else self._limit
        async with connect(self._engine) as connection:
            span = int((await connection.execute(_SPAN))[0][0])
            full = span >= enough and int((await connection.execute(_COUNT, {"limit": enough}))[0][0]) >= enough
        SPAN.set(span)
        if full != self.full:
            self.full = full
            log.warning("outbox.full" if full else "outbox.open_again", limit=self._limit)

    async def watch(self, every: float = 1.0) -> None:
        """Look every second, until cancelled. With the database away, what was seen last holds."""
        await periodic("outbox.count", self.look, every)
