"""The wake-up across processes: a NOTIFY after commits, on a connection of its own, and its LISTEN.

Never inside a business transaction: NOTIFY takes a lock of the whole database at the commit, and the commits of all
writers stand in line. A hint only. While either connection is away the relay polls, and nothing is lost.
"""

import asyncio
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.loops import repeat

CHANNEL = "ftgo_outbox"
SHORTEST_GAP = 0.01
"""Seconds between two notifications: a hundred commits in between are one hint."""

_PING_SECONDS = 5.0


async def _connect(engine: AsyncEngine, name: str) -> Any:
    """A connection outside of the pool, so that a hint never waits for one, nor holds one for ever."""
    arguments, options = engine.dialect.create_connect_args(engine.url)
    settings = {"application_name": name}
    return await asyncpg.connect(*arguments, **{**options, "timeout": 5, "server_settings": settings})


class Notifier:
    """Tells relays in other processes that something was committed: at once, then at most once in 10 ms.

    ``ring`` never waits and never fails; what it says while the database is away is one hint afterwards."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.sent = 0
        self._engine = engine
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def run(self) -> None:
        """Until cancelled."""
        await repeat("notify", self._notify)

    async def _notify(self) -> None:
        """On one connection, until it fails."""
        await self._event.wait()
        connection = await _connect(self._engine, "ftgo-notify")
        try:
            while True:
                await self._event.wait()
                self._event.clear()
                await connection.execute(f"NOTIFY {CHANNEL}", timeout=5)
                self.sent += 1
                await asyncio.sleep(SHORTEST_GAP)
        finally:
            connection.terminate()


class Listener:
    """Rings this process's wake-up when another process notifies. A lost connection is made again."""

    def __init__(self, engine: AsyncEngine, wake_up: WakeUp) -> None:
        self.listening = False
        self._engine = engine
        self._wake_up = wake_up

    async def run(self) -> None:
        """Until cancelled."""
        await repeat("listen", self._listen)

    async def _listen(self) -> None:
        """On one connection, until it fails."""
        connection = await _connect(self._engine, "ftgo-listen")
        try:
            closed = asyncio.Event()
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(CHANNEL, lambda *_: self._wake_up.ring())
            self.listening = True
            self._wake_up.ring()  # whatever was said before we listened
            while not closed.is_set():
                try:
                    async with asyncio.timeout(_PING_SECONDS):
                        await closed.wait()
                except TimeoutError:
                    # A half-open connection looks healthy, and stays silent for ever.
                    await connection.execute("SELECT 1", timeout=_PING_SECONDS)
        finally:
            self.listening = False
            connection.terminate()
        raise ConnectionError("the server closed the connection")
