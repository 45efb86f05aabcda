"""Listening to a channel of any broker, and writing to it, as ``records.Topic`` does with Kafka's: through the port.

A queue gives each message away once. So a tap is one more consumer of the channel, with queues of its own, and hears
from its beginning on; the broker keeps these queues for it afterwards. That is for tests, which throw the broker away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import ATTRIBUTES, ID, Message
from ftgo_messaging.transports.port import Record, Sent, Subscription, Transport

from ftgo_local.scenes.stage import expect

_PREFIX = "ce_"
Wanted: TypeAlias = "Callable[[Heard], bool]"
Topics: TypeAlias = Callable[[str], Awaitable[Any]]
"""Gives a ``records.Topic`` of Kafka, or a ``Tap`` of another broker, by the channel's name: the same to a test."""


@dataclass(frozen=True)
class Heard:
    """A record with the names that it has in Kafka, so that one test reads both."""

    key: bytes | None
    headers: list[tuple[str, bytes]]
    value: bytes | None
    partition: int


class Tap:
    """A channel from ``mark`` on. ``close`` leaves the queues, and takes what is in hand with it."""

    def __init__(self, transport: Transport, channel: Channel) -> None:
        self.name = channel.name
        self.partitions = list(range(transport.lanes))
        self._transport = transport
        self._channel = channel
        self._heard: list[Heard] = []
        self._subscription: Subscription | None = None

    async def mark(self) -> "Tap":
        self._subscription = self._transport.subscription(f"tap-{new_id()}", [self._channel])
        await self._subscription.open()
        if not self._transport.traits.assigns:
            await self._subscription.assign([f"{self.name}/{lane}" for lane in self.partitions])
        # Some brokers give a new consumer what they still hold. What is under way has not come yet, though it counts.
        while any((await self._subscription.backlog()).values()):
            if (earlier := await self._subscription.take(500, 0.5)) is not None:
                self._subscription.settle(earlier)
        return self

    async def find(self, wanted: Wanted, *, within: float = 15.0) -> Heard:
        """The first message since the mark that is wanted. Raises TimeoutError."""
        if self._subscription is None:
            raise RuntimeError("mark() comes first")
        found = None
        async with asyncio.timeout(within):
            while found is None:
                found = next(filter(wanted, self._heard), None)
                if found is None and (batch := await self._subscription.take(100, 1.0)) is not None:
                    self._heard += map(_heard, batch.records)
                    self._subscription.settle(batch)
        return found

    async def put(self, key: bytes, headers: Mapping[str, str], value: bytes | None, partition: int = 0) -> None:
        """Publish a message, and wait for the confirmation. The key decides the lane; ``partition`` is for Kafka."""
        own = {name.removeprefix(_PREFIX): text for name, text in headers.items()}
        publisher = self._transport.publisher("ftgo-tap")
        try:
            message = Message(own.get(ID) or new_id(), self.name, key.decode("latin-1"), own, value or b"")
            (sent,) = await publisher.publish([message])
        finally:
            await publisher.close()
        expect(sent is Sent.CONFIRMED, f"a confirmation for {self.name}", sent)

    async def put_again(self, record: Heard, **changed_headers: str) -> None:
        headers = {name: value.decode() for name, value in record.headers}
        await self.put(record.key or b"", headers | changed_headers, record.value)

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()


def _heard(record: Record) -> Heard:
    headers = [(f"{_PREFIX}{n}" if n in ATTRIBUTES else n, value or b"") for n, value in record.headers]
    return Heard(record.key, headers, record.body, int(record.lane.rpartition("/")[2]))
