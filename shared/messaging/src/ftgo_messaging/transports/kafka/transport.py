"""The port, filled for Kafka: ``kafka://host:9092,host:9093?lanes=12&copies=3``"""

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.reach import reach, telling
from ftgo_messaging.transports.kafka.subscription import SESSION_SECONDS, KafkaSubscription
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.transports.kafka.unread import unread
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses, Traits
from ftgo_messaging.transports.readers import check_readers

TRAITS = Traits(
    "Kafka",
    assigns=True,
    ordered=True,
    replays=True,
    durable=True,
    persistent=True,
    stored=True,
    max_bytes=1_000_000,
    takeover_seconds=SESSION_SECONDS,
)


class KafkaTransport:
    """``bootstrap`` is what Kafka's clients take: addresses, separated by commas. ``copies`` of each new topic."""

    traits = TRAITS

    def __init__(self, bootstrap: str, lanes: int = LANES, copies: int = 1) -> None:
        self.bootstrap = bootstrap
        self.lanes = lanes
        self._copies = copies

    def publisher(self, client: str) -> KafkaPublisher:
        return KafkaPublisher(self.bootstrap, client)

    def subscription(
        self, consumer: str, channels: Sequence[Channel], instance: str | None = None
    ) -> KafkaSubscription:
        """``instance`` keeps the membership over a restart (static membership): partitions are not moved meanwhile. It
        names one process: a second one under the same name takes the partitions of the first, and both are refused."""
        return KafkaSubscription(self.bootstrap, consumer, [c.name for c in channels], instance)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> list[str]:
        """A topic needs to know nothing of its readers."""
        check_readers(channels, readers)
        with telling():
            await reach(self.bootstrap)
            return await ensure_topics(self.bootstrap, [c.name for c in channels], self.lanes, self._copies)

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        """By the groups' committed offsets."""
        with telling():
            await reach(self.bootstrap)
            return await unread(self.bootstrap, readers, self.lanes)

    async def close(self) -> None:
        """Nothing: each publisher and subscription has connections of its own."""


def transport(url: str) -> KafkaTransport:
    """Raises BrokerRefuses for a URL without an address."""
    parts = urlsplit(url)
    if not parts.netloc:
        raise BrokerRefuses(f"no address in {url!r}: kafka://127.0.0.1:9092, say")
    options = {name: int(values[-1]) for name, values in parse_qs(parts.query).items() if name in {"lanes", "copies"}}
    return KafkaTransport(parts.netloc, **options)
