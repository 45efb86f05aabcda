"""Valkey Streams, or Redis', as one way to realise channels. The only place that imports redis.

A lane of a channel is a stream, ``CHANNEL:LANE``. A consumer is a group of each stream, and the group's position
(``last-delivered-id``) says up to where it has handled the stream: it is moved when a batch is settled, as Kafka's
offsets are. Members read with XRANGE and XREAD, which change nothing at the server, and not with XREADGROUP: there a
member that was paused while it waited is still given the next entry in the name of the group, when another has its lane
already; that entry would come late, after others of its key, or never. So there are no lists of pending entries and
nothing is claimed: who gets a lane goes on from the position.

An attribute of CloudEvents, which has no binding for streams, is a field of its name; the key is ``partitionkey`` and
the body ``data``. ``CHANNEL:channel`` is a hash with the number of ``lanes``. It needs Redis 7 or any Valkey, and no
cluster.

Retention: an entry is deleted when it is older than ``keep`` seconds (60, an option of the URL) and no group of its
stream stands before it. Without any group age alone decides. A group whose consumer will never come back keeps its
streams growing, until ``XGROUP DESTROY CHANNEL:LANE CONSUMER``.
"""

from collections.abc import Collection, Mapping, Sequence

import structlog

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.port import Traits
from ftgo_messaging.transports.readers import check_readers
from ftgo_messaging.transports.valkey.publisher import MAX_BYTES, ValkeyPublisher
from ftgo_messaging.transports.valkey.server import PATIENCE, Address, connect, parse, reach
from ftgo_messaging.transports.valkey.streams import examine, make
from ftgo_messaging.transports.valkey.subscription import ValkeySubscription
from ftgo_messaging.transports.valkey.unread import unread

log = structlog.get_logger("ftgo.valkey")

TRAITS = Traits(
    name="valkey",
    assigns=False,
    ordered=True,
    replays=True,  # for ``keep`` seconds, and what another group has not handled
    durable=True,
    persistent=True,  # with an append-only file; ours is on the disk before it confirms: ftgo_local.brokers.valkey
    stored=True,
    max_bytes=MAX_BYTES,
    takeover_seconds=0.0,  # besides the lease of the lane: the broker itself holds nothing for a member
)


class ValkeyTransport:
    """One server, with or without replicas; no cluster."""

    traits = TRAITS

    def __init__(self, address: Address) -> None:
        self._address = address
        self.lanes = address.lanes

    def publisher(self, client: str) -> ValkeyPublisher:
        return ValkeyPublisher(self._address, client)

    def subscription(
        self, consumer: str, channels: Sequence[Channel], instance: str | None = None
    ) -> ValkeySubscription:
        return ValkeySubscription(self._address, consumer, [x.name for x in channels], instance)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        client = connect(self._address, "declare")
        try:
            async with reach(self._address, PATIENCE):
                for wrong in await examine(client):
                    log.warning("server.settings", address=str(self._address), wrong=wrong)
                return await make(client, {x.name: readers.get(x.name, ()) for x in channels}, self._address.lanes)
        finally:
            await client.aclose()

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        client = connect(self._address, "unread")
        try:
            async with reach(self._address, PATIENCE):
                return await unread(client, readers, self._address.lanes)
        finally:
            await client.aclose()

    async def close(self) -> None:
        """Nothing is held: publishers and subscriptions have connections of their own."""


def transport(url: str) -> ValkeyTransport:
    """Of ``valkey://user:password@host:port/database?lanes=12&keep=60``; also ``redis://``, and ``valkeys://`` or
    ``rediss://`` with TLS. Connects to nothing yet. Raises BrokerRefuses for a URL that says something else."""
    return ValkeyTransport(parse(url))
