"""Which brokers there are, and what the rest of `ftgo` has to know of each. Nothing else here names one of them."""

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from ftgo_local.errors import PlatformError
from ftgo_local.keeper import Unit
from ftgo_local.ports import BROKER_PORTS, free_port

DEFAULT = "kafka"


class Broker(Unit, Protocol):
    """A server of ours, as a process. ``url`` is how clients reach it; it may hold a password."""

    directory: Path
    port: int

    @property
    def url(self) -> str: ...

    async def prepare(self) -> None:
        """Fetch what ``start`` needs, once. Raises PlatformError: why it cannot run here."""


@dataclass(frozen=True)
class Kind:
    """``preparation`` is what is shown while it is fetched, empty where nothing is. Memory and disk are what it adds to
    PostgreSQL and the services."""

    name: str
    title: str
    server: str  # module:class
    schemes: tuple[str, ...]  # of its addresses; the first is that of our own
    memory_mb: int
    disk_mb: int
    preparation: str = ""
    runs: bool = True  # as a process
    leases: bool = True  # who reads which lanes is decided in the consumers' databases


KINDS = {
    kind.name: kind
    for kind in (
        Kind("kafka", "Kafka", "ftgo_local.kafka:Kafka", ("kafka",), 500, 500, "Kafka jars", leases=False),
        Kind(
            *("rabbitmq", "RabbitMQ", "ftgo_local.brokers.rabbitmq:RabbitMQ", ("amqp", "amqps"), 300, 400),
            "RabbitMQ programs",
        ),
        Kind(
            *("activemq", "ActiveMQ", "ftgo_local.brokers.activemq:ActiveMQ", ("stomp", "stomp+ssl"), 400, 400),
            "ActiveMQ jars",
        ),
        Kind(
            *("valkey", "Valkey", "ftgo_local.brokers.valkey:Valkey"),
            *(("valkey", "valkeys", "redis", "rediss"), 100, 200),
        ),
        Kind("nats", "NATS", "ftgo_local.brokers.nats:Nats", ("nats", "tls"), 100, 200),
        Kind("direct", "direct HTTP", "ftgo_local.brokers.direct:Direct", ("http+static",), 0, 0, runs=False),
    )
}
"""In the order in which they are told. The last is none: the services talk to each other."""

NO_BROKER = "There is no broker: the services talk to each other over HTTP."


def kind_of(url: str) -> Kind | None:
    """The kind that the scheme of an address names; None for one that `ftgo` cannot start."""
    scheme = urlsplit(url).scheme
    return next((kind for kind in KINDS.values() if scheme in kind.schemes), None)


def server(name: str, state_dir: Path, port: Callable[[str], int], log: Path) -> Broker:
    """The server of that name below the state directory. Starts nothing. Raises PlatformError when its module or a
    package of it is missing."""
    kind = KINDS[name]
    module, _, cls = kind.server.partition(":")
    try:
        made: Callable[..., Broker] = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        raise PlatformError(
            f"{kind.title} cannot be started here: {error}.", "Run `make up`, which installs what is missing."
        ) from error
    return made(state_dir / name, *(port(each) for each in BROKER_PORTS[name]), log=log)


def shown(url: str) -> str:
    """The address without user and password, for people and logs."""
    parts = urlsplit(url)
    if not parts.netloc:  # a file
        return url.partition("?")[0]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def version(name: str, state_dir: Path) -> str:
    """What would run, as far as that is known without fetching anything. Raises PlatformError when none can."""
    unit = _spare(name, state_dir)
    if not KINDS[name].preparation:
        asyncio.run(unit.prepare())
    known: Callable[[], str] = getattr(unit, "known_version", lambda: "")
    return known() or ("fetched at its first start" if KINDS[name].preparation else "here")


def absence(name: str, state_dir: Path) -> PlatformError | None:
    """Why that broker cannot run here; None when it can. Fetches what it needs, as its first start does."""
    try:
        asyncio.run(_spare(name, state_dir).prepare())
    except PlatformError as error:
        return error
    return None


def _spare(name: str, state_dir: Path) -> Broker:
    """One that is not to be started."""
    return server(name, state_dir, lambda _: free_port(), state_dir / f"{name}.log")
