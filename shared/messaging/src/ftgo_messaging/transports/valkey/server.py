"""The server: its address, a client for it, and its errors as those of the port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses
from ftgo_messaging.transports.tls import untrusted

PATIENCE = 10.0
"""Seconds for an answer, besides what the server was asked to wait. A longer fsync than that is an outage."""

_TLS = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
_PASSING = ("MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED")
"""Beginnings of answers that another time may be others: a full disk, a replica that is becoming the primary."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    user: str | None
    password: str | None
    database: int
    tls: bool
    lanes: int
    keep: int

    def __str__(self) -> str:
        """Without the password."""
        return f"{self.host}:{self.port}/{self.database}"


def parse(url: str) -> Address:
    """Raises BrokerRefuses."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        address = Address(
            parts.hostname or "127.0.0.1",
            parts.port or 6379,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            int(parts.path.strip("/") or 0),
            _TLS[parts.scheme],
            int(options.pop("lanes", LANES)),
            int(options.pop("keep", 60)),
        )
    except (ValueError, KeyError):
        raise BrokerRefuses(
            "The broker's URL is not of the form valkey://user:password@host:port/database?lanes=12&keep=60: "
            "mend FTGO_BROKER_URL."
        ) from None
    if options or address.lanes < 1 or address.keep < 0:
        raise BrokerRefuses(
            f"The broker's URL has options that mean nothing ({parts.query}): Valkey knows lanes, from 1, and keep, "
            "from 0 seconds."
        )
    return address


def connect(address: Address, name: str) -> Redis:
    """A client, not connected yet. It repeats nothing by itself: who asks for it knows what may be sent twice."""
    return Redis(
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user,
        password=address.password,
        ssl=address.tls,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        # The limits of ``reach`` count instead: a wait for the next entry is no failure.
        socket_timeout=None,
        socket_connect_timeout=PATIENCE,
        client_name="".join(c if "!" <= c <= "~" else "-" for c in name),
    )


@asynccontextmanager
async def reach(address: Address, seconds: float) -> AsyncIterator[None]:
    """Ask the server something, within that time. Raises TransientError and BrokerRefuses."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise BrokerRefuses(
            f"Valkey at {address} does not let us in ({error}): mend user and password in FTGO_BROKER_URL, or the "
            "user's ACL at the server."
        ) from error
    except OutOfMemoryError as error:
        raise BrokerRefuses(full(address)) from error
    except (ConnectionError, TimeoutError, OSError) as error:
        if refusal := untrusted(error, f"Valkey at {address}"):
            raise refusal from error
        # OSError: also asyncio's own TimeoutError.
        raise TransientError(f"Valkey at {address} is away: {type(error).__name__} {error}".strip()) from error
    except RedisError as error:
        if isinstance(error, ResponseError) and is_passing(error):
            raise TransientError(f"Valkey at {address} cannot serve now: {error}") from error
        raise BrokerRefuses(
            f"Valkey at {address} refuses ({error}): it may be another program, or older than Redis 7, or hold other "
            "data under the names of our streams; FTGO_BROKER_URL with another database number keeps apart."
        ) from error


def is_passing(error: ResponseError) -> bool:
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith(_PASSING)


def full(address: Address) -> str:
    return (
        f"Valkey at {address} has no memory left (its setting maxmemory): raise it, or let the consumers catch up, "
        "after which old entries are deleted."
    )
