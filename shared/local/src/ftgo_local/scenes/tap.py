"""Listening to a channel of any broker, and writing to it, as ``records.Topic`` does with Kafka's: through the port.

A queue gives each message away once. So a tap is one more consumer of the channel, with queues of its own, and hears
from its beginning on; the broker keeps these queues for it afterwards. That is for tests, which throw the broker away.
Without a broker it stands in the registry until it is closed, with an address of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import ATTRIBUTES, ID, Message
from ftgo_messaging.runtime.errors import TransientError
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
    """A channel from ``mark`` on, read all the time: without a broker its senders wait for it. ``close`` leaves the
    queues, and takes what is in hand with it."""

    def __init__(self, transport: Transport, channel: Channel, url: str) -> None:
        self.name = channel.name
        self.partitions = list(range(transport.lanes))
        self._transport = transport
        self._channel = channel
        self._url = url
        self._heard: list[Heard] = []
        self._news = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._open = AsyncExitStack()

    async def mark(self) -> "Tap":
        consumer = f"tap-{new_id()}"
        if urlsplit(self._url).scheme == "http+static":
            from ftgo_local.brokers.direct import admitted

            self._open.enter_context(admitted(self._url, consumer, self.name))
        subscription = self._transport.subscription(consumer, [self._channel])
        await subscription.open()
        self._open.push_async_callback(subscription.close)
        if not self._transport.traits.assigns:
            await subscription.assign([f"{self.name}/{lane}" for lane in self.partitions])
        # Some brokers give a new consumer what they still hold. What is under way has not come yet, though it counts.
        while any((await subscription.backlog()).values()):
            if (earlier := await subscription.take(500, 0.5)) is not None:
                subscription.settle(earlier)
        self._listening = asyncio.create_task(self._listen(subscription), name=consumer)
        return self

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            try:
                if (batch := await subscription.take(100, 1.0)) is not None:
                    self._heard += map(_heard, batch.records)
                    subscription.settle(batch)
                    self._news.set()
            except TransientError:  # the broker is away: it connects again by itself
                await asyncio.sleep(0.2)

    async def find(self, wanted: Wanted, *, within: float = 15.0) -> Heard:
        """The first message since the mark that is wanted. Raises TimeoutError."""
        if self._listening is None:
            raise RuntimeError("mark() comes first")
        async with asyncio.timeout(within):
            while (found := next(filter(wanted, self._heard), None)) is None:
                self._news.clear()
                news = asyncio.ensure_future(self._news.wait())
                try:
                    await asyncio.wait({news, self._listening}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                if self._listening.done():
                    self._listening.result()
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
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._open.aclose()


def _heard(record: Record) -> Heard:
    headers = [(f"{_PREFIX}{n}" if n in ATTRIBUTES else n, value or b"") for n, value in record.headers]
    return Heard(record.key, headers, record.body, int(record.lane.rpartition("/")[2]))
