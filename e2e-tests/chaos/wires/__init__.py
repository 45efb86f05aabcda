"""What the harness does at a broker, by the broker's own means: keep all that is published, listen, publish, count.

None of it goes through the library: how a channel looks at each broker is written down here once more, on purpose. A
module for each broker; the rest of the harness knows none of them.
"""

import importlib
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

CLASSES = {
    "kafka": "kafka:KafkaWire",
    "rabbitmq": "rabbitmq:RabbitWire",
    "activemq": "activemq:ActiveMqWire",
    "valkey": "valkey:ValkeyWire",
    "nats": "nats:NatsWire",
}


@dataclass(frozen=True)
class Raw:
    """What stands at a broker. ``place`` grows with the order in a lane. ``headers`` have CloudEvents' names;
    ``native`` is what the wire needs to publish the same once more."""

    topic: str
    lane: int
    place: int
    key: str | None
    headers: Mapping[str, str | None]
    body: bytes | None
    native: Any


class Ear(Protocol):
    async def read(self, seconds: float) -> Sequence[Raw]:
        """What has come since, after so many seconds at most."""
        ...


class Voice(Protocol):
    async def again(self, raw: Raw, **changed: str) -> None:
        """Publish the same once more, to the same lane, but for these headers. Returns when it is confirmed."""
        ...

    async def put(self, topic: str, key: str, headers: Mapping[str, str], body: bytes) -> None: ...


class Wire(Protocol):
    """``keeps`` says how the witness comes to see what was published. ``exact``: what is in hand counts as lag."""

    keeps: str
    exact: bool
    trouble: tuple[type[BaseException], ...]
    """What the client raises while the broker is away."""

    async def bind(self) -> None:
        """From now on all that is published is kept for the witness."""
        ...

    def everything(self, topics: Iterable[str]) -> AsyncIterator[Raw]:
        """All of it, of each lane in its order."""
        ...

    def listen(self, topics: Sequence[str], positions: MutableMapping[Any, Any]) -> AbstractAsyncContextManager[Ear]:
        """Where the broker has positions, from these on, which move with what is read; elsewhere from now on."""
        ...

    def speak(self) -> AbstractAsyncContextManager[Voice]: ...

    async def lags(self) -> dict[str, int]:
        """How many records each consumer is behind. May raise anything while the broker is away."""
        ...


def wire_at(broker: str, url: str) -> Wire:
    module, _, name = CLASSES[broker].partition(":")
    made: Wire = getattr(importlib.import_module(f"wires.{module}"), name)(url)
    return made
