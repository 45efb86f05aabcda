"""How many letters wait for somebody, and how many keys behind them: for the metrics, readiness and those on call.

A parked key costs its customers their orders, and nothing else shows it: everybody else is served as ever.
"""

from collections import defaultdict
from collections.abc import Mapping

from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.consumer.dead_letters import UNRESOLVED
from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.runtime.loops import periodic

LETTERS = Gauge("ftgo_dead_letters", "Dead letters that are not resolved", ["consumer", "state"])
PARKED = Gauge("ftgo_parked_keys", "Keys whose later messages wait behind a dead letter", ["consumer"])

# Both read partial indexes, which are empty as a rule.
_LETTERS = text("SELECT consumer, state, count(*) FROM dead_letters WHERE resolved_at IS NULL GROUP BY consumer, state")
_PARKED = text(
    "SELECT consumer, count(DISTINCT (channel, sha256(key))) FROM dead_letters "
    "WHERE parks_key AND resolved_at IS NULL GROUP BY consumer"
)


class Unresolved:
    """``counts``, by consumer: letters by state, and ``parkedKeys``. As of the last look; only what is there."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.counts: Mapping[str, Mapping[str, int]] = {}
        self._engine = engine

    async def look(self) -> None:
        """Count anew."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        async with connect(self._engine) as connection:
            for consumer, state, number in await connection.execute(_LETTERS):
                counts[consumer][state.lower()] = number
            for consumer, number in await connection.execute(_PARKED):
                counts[consumer]["parkedKeys"] = number
        for consumer in counts.keys() | self.counts.keys():
            of_consumer = counts.get(consumer, {})
            PARKED.labels(consumer).set(of_consumer.get("parkedKeys", 0))
            for state in UNRESOLVED:
                LETTERS.labels(consumer, state.value).set(of_consumer.get(state.value.lower(), 0))
        self.counts = dict(counts)

    async def watch(self, every: float = 5.0) -> None:
        """Look every few seconds, until cancelled. With the database away, what was seen last holds."""
        await periodic("dead_letters.count", self.look, every)
