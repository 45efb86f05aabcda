"""The relay: publishes committed outbox rows, at least once, in order per key.

Two ways of finding the rows stand behind one port (polling publisher, transaction log tailing). Both publish first
and delete afterwards: a crash in between repeats a publish, with the same message id, and never loses one.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Gauge

SHARDS_HELD = Gauge("ftgo_relay_shards", "Shards of the outbox that this relay publishes; 0: it stands by")
LAST_ROUND = Gauge("ftgo_relay_last_round_timestamp_seconds", "End of the relay's last round that went well")


@dataclass
class RelayStatus:
    """How a relay does, for readiness and metrics. Times in seconds, ``last_round`` since 1970: the end of the last
    round that went well, with or without messages.

    ``found`` rows were found by the last round; ``oldest_age`` is how old the first of them was."""

    shards: int | None = None
    published: int = 0
    last_round: float = 0.0
    found: int = 0
    oldest_age: float = 0.0
    stopped_keys: int = 0

    @property
    def role(self) -> str:
        """An owner publishes, a standby waits for a lease."""
        return "starting" if self.shards is None else "owner" if self.shards else "standby"

    def holds(self, shards: int) -> None:
        self.shards = shards
        SHARDS_HELD.set(shards)

    def round_done(self) -> None:
        self.last_round = time.time()
        LAST_ROUND.set(self.last_round)


class Relay(Protocol):
    """Publishes what business transactions left in the outbox."""

    @property
    def status(self) -> RelayStatus: ...

    async def run_once(self) -> int:
        """Publish what is there now; returns how many messages were acknowledged and removed."""
        ...

    async def run(self) -> None:
        """Publish until stopped. Survives outages of the database and of the broker."""
        ...

    def stop(self) -> None:
        """End ``run`` after the round that is under way."""
        ...

    async def release(self) -> None:
        """Let a successor begin at once."""
        ...


class WakeUp:
    """Tells a loop of this process that there is something to do: the relay, that something was committed. Only a hint
    there: polling stays the truth."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout: float | None) -> bool:
        """Return at the next ring (True) or after ``timeout`` seconds (False), if there is such a bound."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
