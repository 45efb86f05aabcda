"""The relay: publishes committed outbox rows, at least once, in order per key.

Two ways of finding the rows stand behind one port (polling publisher, transaction log tailing). Both publish first
and delete afterwards: a crash in between repeats a publish, with the same message id, and never loses one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ftgo_messaging.message import Message


class Publisher(Protocol):
    """Hands messages to the broker."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        """Publish in the order given and wait for the acknowledgements. Returns, for each message, whether it was
        acknowledged by all replicas in sync; False means *unknown*: it may have arrived."""
        ...


@dataclass
class RelayStatus:
    """How a relay does, for readiness and metrics. Times in seconds; ``last_success`` since 1970, 0 before the first.

    ``found`` rows were found by the last poll; ``oldest_age`` is how old the first of them was."""

    role: str = "starting"  # then owner or standby
    published: int = 0
    last_success: float = 0.0
    found: int = 0
    oldest_age: float = 0.0
    stopped_keys: int = 0


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
    """Tells the relay of this process that something was committed. Only a hint: polling stays the truth."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Return at the next ring (True) or after ``timeout`` seconds (False)."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
