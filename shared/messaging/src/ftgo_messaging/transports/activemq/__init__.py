"""ActiveMQ Classic over STOMP 1.2. The only place that imports stompman.

For each consumer and lane of a channel there is one queue; a virtual topic for each lane copies what is sent to it into
the queues of all consumers. A lane's subscription is exclusive, so the broker itself gives a lane to one connection.
"""

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.activemq.link import Address, Link
from ftgo_messaging.transports.activemq.names import declare
from ftgo_messaging.transports.activemq.publisher import ActiveMqPublisher
from ftgo_messaging.transports.activemq.subscription import ActiveMqSubscription
from ftgo_messaging.transports.activemq.unread import unread
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses, Publisher, Subscription, Traits
from ftgo_messaging.transports.readers import check_readers

TRAITS = Traits(
    name="activemq",
    assigns=False,
    ordered=True,
    replays=False,
    durable=True,
    persistent=True,
    stored=True,
    max_bytes=1_000_000,
    # A member that was killed: at once. One that stands still, or whose network is gone: by missing heart-beats.
    takeover_seconds=12.0,
)


class ActiveMq:
    """The broker at one address."""

    traits = TRAITS

    def __init__(self, address: Address, lanes: int = LANES) -> None:
        self._address = address
        self.lanes = lanes

    def publisher(self, client: str) -> Publisher:
        return ActiveMqPublisher(self._address, TRAITS.max_bytes)

    def subscription(self, consumer: str, channels: Sequence[Channel], instance: str | None = None) -> Subscription:
        return ActiveMqSubscription(self._address, consumer, [channel.name for channel in channels], self.lanes)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        link = await Link.connect(self._address)
        try:
            made = {c.name: await declare(link, c.name, readers.get(c.name, ()), self.lanes) for c in channels}
        finally:
            link.abort()
        return [name for name, new in made.items() if new]

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        link = await Link.connect(self._address)
        try:
            return await unread(link, readers, self.lanes)
        finally:
            link.abort()

    async def close(self) -> None:
        """Nothing is shared: publishers and subscriptions have connections of their own."""


def transport(url: str) -> ActiveMq:
    """``stomp://user:password@host:61613?lanes=12``, or ``activemq://``, or ``stomp+ssl://`` (port 61612), encrypted.
    Raises BrokerRefuses for one that is none."""
    try:
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        lanes = int(options.pop("lanes", LANES))
        tls = parts.scheme == "stomp+ssl"
        host, port = parts.hostname or "127.0.0.1", parts.port or (61612 if tls else 61613)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError as error:
        raise BrokerRefuses(f"The address of ActiveMQ cannot be read ({error}): write stomp://host:61613.") from error
    if options or lanes < 1 or parts.path.strip("/"):
        raise BrokerRefuses("The address of ActiveMQ takes no path and one option, lanes=12: remove the others.")
    return ActiveMq(Address(host, port, user, password, tls=tls), lanes)
