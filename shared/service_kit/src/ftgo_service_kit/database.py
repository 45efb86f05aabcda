"""The connections of a service: SQLAlchemy Core on asyncpg, a pool for each purpose, no overflow, short time-outs.

With one pool for all, a thousand readers would keep the relay and the consumers from theirs. So readers queue for a
few connections, and everything that works by itself has one for each of its tasks: it never waits.
"""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ftgo_service_kit.settings import ServiceSettings

WRITES = 2
"""The workers of the group commit."""

MESSAGES = 4
"""Two consumers: each handles one batch, and redrives one dead letter."""

RELAY = 2
"""One publishes; one looks after its slot, when it tails the log."""

UPKEEP = 4
"""The reconciler, the retention, the count of the outbox, and the probes of the platform, which share one."""

HINTS = 2
"""Outside of the pools: one sends NOTIFY, one listens."""


def most_connections(reads: int) -> int:
    """Of one process that does everything. They are opened when they are needed first."""
    return WRITES + MESSAGES + RELAY + UPKEEP + HINTS + reads


def async_url(url: str) -> str:
    """postgresql://... or postgres://... as SQLAlchemy names it for asyncpg."""
    _, separator, rest = url.partition("://")
    return f"postgresql+asyncpg{separator}{rest}"


class Pools:
    """``reads`` is for what clients and administrators ask. The server sees the pools by name: ``ftgo-order-reads``."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        def pool(purpose: str, size: int, url: str = settings.database_url) -> AsyncEngine:
            return make_engine(url, f"ftgo-{service}-{purpose}", size)

        self.writes = pool("writes", WRITES)
        self.messages = pool("messages", MESSAGES)
        # Only tailing needs more rights than the service has: to poll is to read and delete rows.
        tailing = settings.relay == "log-tailing" and settings.relay_database_url
        self.relay = pool("relay", RELAY, tailing or settings.database_url)
        self.upkeep = pool("upkeep", UPKEEP)
        self.reads = pool("reads", settings.pool_size)

    async def close(self) -> None:
        """Close all connections that are in nobody's hands."""
        every = (self.writes, self.messages, self.relay, self.upkeep, self.reads)
        await asyncio.gather(*(pool.dispose() for pool in every))


def make_engine(url: str, application_name: str, size: int) -> AsyncEngine:
    """A pool of at most ``size`` connections. Who gets none within 5 s fails as transient; nothing waits for ever."""
    return create_async_engine(
        async_url(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
        connect_args={
            "timeout": 5,
            "command_timeout": 30,
            "server_settings": {
                "application_name": application_name,
                "jit": "off",
                "statement_timeout": "20s",
                "lock_timeout": "10s",
                # A paused process must not keep its successor waiting for its locks.
                "idle_in_transaction_session_timeout": "20s",
            },
        },
    )
