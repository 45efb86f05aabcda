"""No broker: the conformance suite, with an outbox in memory before the publisher; and what only this transport has."""

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import h11
import msgspec
import pytest
from ftgo_local.ports import free_port
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.judging import disorder, id_of, messages, missing
from ftgo_messaging.testing.suite.members import Member, lanes_of
from ftgo_messaging.testing.transport_suite import TransportSuite
from ftgo_messaging.transports import direct, transport_at
from ftgo_messaging.transports.cloudevents import to_envelope
from ftgo_messaging.transports.direct.publisher import DirectPublisher
from ftgo_messaging.transports.direct.registry import Registry, RegistryFile
from ftgo_messaging.transports.direct.subscription import DirectSubscription
from ftgo_messaging.transports.port import BrokerRefuses, Publisher, Sent


@pytest.fixture
def registry() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-")) / "registry.json"
    path.write_text("{}")
    yield path
    shutil.rmtree(path.parent, ignore_errors=True)


def give_addresses(path: Path, consumers: Collection[str], each: int = 1) -> None:
    """To those that have none."""
    known = msgspec.json.decode(path.read_bytes(), type=Registry)
    for consumer in consumers:
        known.consumers.setdefault(consumer, [f"http://127.0.0.1:{free_port()}" for _ in range(each)])
    path.write_bytes(msgspec.json.encode(known))


# -- the suite ---------------------------------------------------------------------------------------------------------


class Outbox:
    """As ``Delivery`` does it, in memory: a message that was not confirmed holds the later ones of its key."""

    def __init__(self, publisher: DirectPublisher, registry: RegistryFile) -> None:
        self._publisher = publisher
        self._registry = registry
        self._rows: list[Message] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._relay(), name="relay")

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        """Confirms what is in the outbox; the publisher itself refuses what can never be sent."""
        await asyncio.sleep(0)
        known = self._registry.read().channels
        sent = []
        for message in messages:
            if message.channel in known and len(message.body) <= direct.TRAITS.max_bytes:
                sent.append(Sent.CONFIRMED)
                self._rows.append(message)
            else:
                sent += await self._publisher.publish([message])
        self._more.set()
        return sent

    async def _relay(self) -> None:
        while True:
            rows = self._rows[:500]
            if not rows:
                self._more.clear()
                await self._more.wait()
                continue
            outcomes = await self._publisher.publish(rows)
            blocked: set[tuple[str, str]] = set()
            left = []
            for row, how in zip(rows, outcomes, strict=True):
                if how is not Sent.CONFIRMED:
                    blocked.add((row.channel, row.key))
                if (row.channel, row.key) in blocked:
                    left.append(row)
            self._rows[: len(rows)] = left
            if left:
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._publisher.close()


class WithOutbox(direct.DirectTransport):
    __module__ = direct.__name__  # the suite's processes take the package of their transport from it

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(direct.registry_at(url))
        self._path = path

    def publisher(self, client: str) -> Publisher:  # type: ignore[override]
        return Outbox(super().publisher(client), self._registry)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        give_addresses(self._path, [name for names in readers.values() for name in names], each=6)
        return await super().declare(channels, readers)


class InNoBroker:
    """There is no server that could be killed."""

    traits = direct.TRAITS
    kill = start = stop = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url: str | None = f"http+static://{path}"

    def transport(self) -> WithOutbox:
        return WithOutbox(self.url or "", self._path)


class TestDirect(TransportSuite):
    @pytest.fixture
    def subject(self, registry: Path) -> InNoBroker:
        return InNoBroker(registry)
