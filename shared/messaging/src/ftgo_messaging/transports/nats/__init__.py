"""NATS with JetStream, by nats-py itself: FastStream's broker reconnects and then sends what it has kept, and has one
loop per subscriber with its own acknowledging; lanes that change hands and batches would be built around it.

``declaring`` says what stands at the server, ``subscription`` how a lane changes hands. Needs a server of 2.14 or
later, which can reset a durable.
"""

from collections.abc import Collection, Mapping, Sequence

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.nats.connection import Address, Connection
from ftgo_messaging.transports.nats.declaring import declare_readers, declare_stream
from ftgo_messaging.transports.nats.publisher import MAX_BYTES, NatsPublisher
from ftgo_messaging.transports.nats.subscription import NatsSubscription
from ftgo_messaging.transports.nats.unread import unread
from ftgo_messaging.transports.port import Traits, Transport
from ftgo_messaging.transports.readers import check_readers

TRAITS = Traits(
    name="nats",
    assigns=False,
    ordered=True,
    replays=False,  # interest retention: what everybody has acknowledged is gone
    durable=True,
    persistent=True,  # kill -9; of a loss of power it depends on the server's ``sync_interval``
    stored=True,
    max_bytes=MAX_BYTES,
    takeover_seconds=1.0,
)


class NatsTransport:
    traits = TRAITS

    def __init__(self, url: str) -> None:
        self._address = Address.of(url)
        self.lanes = self._address.lanes

    def publisher(self, client: str) -> NatsPublisher:
        return NatsPublisher(self._address, client)

    def subscription(self, consumer: str, channels: Sequence[Channel], instance: str | None = None) -> NatsSubscription:
        names = [channel.name for channel in channels]
        return NatsSubscription(self._address, consumer, names, f"{consumer}:{instance or ''}")

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        link = await Connection(self._address, "declare").connect()
        try:
            made = [c.name for c in channels if await declare_stream(link, c.name, self._address)]
            for channel in channels:
                await declare_readers(link, channel.name, readers.get(channel.name, ()), self._address.lanes)
        finally:
            await link.close()
        return made

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        link = await Connection(self._address, "unread").connect()
        try:
            return await unread(link, readers, self.lanes)
        finally:
            await link.close()

    async def close(self) -> None:
        """Nothing is shared: publishers and subscriptions close their own connections."""


def transport(url: str) -> Transport:
    return NatsTransport(url)
