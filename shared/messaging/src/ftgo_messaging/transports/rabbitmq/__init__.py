"""RabbitMQ by AMQP 0.9.1: ``amqp://user:password@host:5672/vhost?lanes=12`` (also ``rabbitmq://``, and ``amqps://``).

By aiormq, the layer below aio-pika (which brings it): FastStream and aio-pika hide what this needs, one AMQP channel
per lane, cumulative acknowledgements, and what became of each of many messages in flight.

A channel is a durable direct exchange, its routing keys are the numbers of lanes. Each consumer has a durable queue per
lane, ``CHANNEL.CONSUMER.LANE``. They are classic queues, with persistent messages: on one node quorum queues were
neither faster nor slower (5,000 messages/s either way), and since RabbitMQ 4 they drop what was given 20 times.

Each queue has a single active consumer. A lane's lease may go to another member while the connection of a paused one
lives on with what it was given: the other gets nothing until RabbitMQ has closed that, after missed heartbeats, and put
its messages back, at their places. Otherwise later ones would overtake them.
"""

from collections.abc import Collection, Mapping, Sequence

from yarl import URL

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses, Traits
from ftgo_messaging.transports.rabbitmq.connection import HEARTBEAT_SECONDS, connected
from ftgo_messaging.transports.rabbitmq.publisher import MAX_BYTES, RabbitPublisher
from ftgo_messaging.transports.rabbitmq.subscription import RabbitSubscription
from ftgo_messaging.transports.rabbitmq.topology import Topology
from ftgo_messaging.transports.readers import check_readers

_TRAITS = Traits(
    name="rabbitmq",
    assigns=False,
    ordered=True,
    replays=False,  # a queue gets what is published after it was made
    durable=True,
    # RabbitMQ confirms what is written. For classic queues it calls fsync now and then, or not at all (3.12 and later).
    persistent=True,
    stored=True,
    max_bytes=MAX_BYTES,
    # At once when a process is killed, for its system closes the connection. That of a host that is gone lives longer.
    takeover_seconds=4.0 * HEARTBEAT_SECONDS,
)


class RabbitTransport:
    """Each publisher and subscription has a connection of its own."""

    traits = _TRAITS

    def __init__(self, url: URL, lanes: int) -> None:
        self._url = url
        self.lanes = lanes

    def publisher(self, client: str) -> RabbitPublisher:
        return RabbitPublisher(self._url, client, self.lanes)

    def subscription(
        self, consumer: str, channels: Sequence[Channel], instance: str | None = None
    ) -> RabbitSubscription:
        return RabbitSubscription(self._url, consumer, [c.name for c in channels], self.lanes, instance)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        async with connected(self._url, "declare") as connection, Topology(connection, self.lanes) as topology:
            return [c.name for c in channels if await topology.declare(c.name, readers.get(c.name, ()))]

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        raise BrokerRefuses(
            "RabbitMQ does not tell what its consumers have in hand, so nobody knows when a lane has been read to its "
            "end: stop what sends, wait until the queues are empty, stop the rest, and start on the other broker."
        )

    async def close(self) -> None:
        """Nothing is shared."""


def transport(url: str) -> RabbitTransport:
    """Raises BrokerRefuses for what is no such address."""
    try:
        parsed = URL(url)
        lanes = int(parsed.query.get("lanes", LANES))
    except ValueError as error:
        raise BrokerRefuses(f"The address of RabbitMQ cannot be read: {error}.") from None
    if not parsed.host or not 1 <= lanes <= 1000:
        raise BrokerRefuses("An address of RabbitMQ is amqp://user:password@host:port/vhost?lanes=12, lanes 1 to 1000.")
    scheme = "amqps" if parsed.scheme == "amqps" else "amqp"
    return RabbitTransport(parsed.with_scheme(scheme).without_query_params("lanes"), lanes)
