"""Amazon SQS as one way to realise channels: FIFO queues, one for each lane of each consumer.

**Order.** A lane's queue has one message group. SQS gives nothing more of a group while some of it is in hand, so what
a member that died or is paused had comes first, after ``visibility`` seconds (30), to whoever has the lane then. Who
that is the lane lease decides, in the consumer's database (``assigns`` is false): the group's lock alone would let a
member that was paused work at records that another one has already. A member has up to ten messages of a lane in hand.

**Publish and subscribe.** The publisher sends to the queue of each reader, and looks every 2 s which there are: the
names of the queues say it. A message is confirmed when all of them have it; otherwise the relay sends it again, and
who has it already drops it by its id. No SNS: a FIFO topic would be a third thing that can be declared otherwise (its
largest message is 256 KiB unless it was made for 1 MiB), and no emulation that runs here has it together with FIFO
queues that keep their order. What that costs: a request for each ten messages and reader, where SNS would take one.

**Form.** CloudEvents' structured mode, one JSON document: SQS has ten attributes for a message, and no bytes but text.

**Price.** SQS counts requests. A member asks each of its lanes once in ``wait`` seconds (1, at most 20): an idle
consumer of a channel with 12 lanes costs 31 million requests a month, or 1.6 million with ``wait=20``, where giving a
lane to another member may take as long.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.aws.address import Address, parse
from ftgo_messaging.transports.aws.client import Link
from ftgo_messaging.transports.aws.sqs.publisher import MAX_BYTES, SqsPublisher
from ftgo_messaging.transports.aws.sqs.queues import declare
from ftgo_messaging.transports.aws.sqs.subscription import SqsSubscription
from ftgo_messaging.transports.port import BrokerRefuses, Traits
from ftgo_messaging.transports.readers import check_readers

TRAITS = Traits(
    name="sqs",
    assigns=False,
    ordered=True,
    replays=False,  # what a reader has deleted is gone, and a new one has queues of its own
    durable=True,  # for 14 days
    persistent=True,  # AWS' own statement: in several data centres before it is confirmed
    stored=True,
    max_bytes=MAX_BYTES,
    takeover_seconds=30.0,
)


class SqsTransport:
    """The queues of one account in one region."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.lanes = address.lanes
        self.traits = replace(TRAITS, takeover_seconds=float(address.visibility))

    def publisher(self, client: str) -> SqsPublisher:
        return SqsPublisher(self._address, client)

    def subscription(self, consumer: str, channels: Sequence[Channel], instance: str | None = None) -> SqsSubscription:
        return SqsSubscription(self._address, consumer, [channel.name for channel in channels], instance)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        link = Link(self._address, "sqs", "declare")
        try:
            return [x.name for x in channels if await declare(link, x.name, readers.get(x.name, ()))]
        finally:
            await link.close()

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        raise BrokerRefuses(
            "SQS tells approximately how much waits, so nobody knows when a lane has been read to its end: stop what "
            "sends, wait until the queues are empty, stop the rest, and start on the other broker."
        )

    async def close(self) -> None:
        """Nothing is held: publishers and subscriptions have connections of their own."""


def transport(url: str) -> SqsTransport:
    """Of ``sqs://REGION?lanes=12&visibility=30&wait=1``, or ``sqs://HOST:PORT?region=REGION`` for a server that has the
    API (``signed=no``: without credentials). Connects to nothing yet. Raises BrokerRefuses for another URL."""
    return SqsTransport(parse(url))
