"""No broker at all: HTTP between the services, over a registry that says who is where.

A sender POSTs the messages of a channel to each consumer of it; the answer comes when the consumer's database has
committed them. Nothing is kept on the way: what was not answered stays in the sender's outbox, whose relay repeats it,
and the receiver's record of ids makes the second time harmless. So ``durable`` and ``persistent`` are promises of the
two databases together, and a publisher that is used without an outbox has neither.

The registry is a file that each process can read, ``http+static:///PATH/registry.json?lanes=12``:

    {"lanes": 12,
     "consumers": {"kitchen": ["http://127.0.0.1:7101", "http://127.0.0.1:7102"]},
     "channels": {"kitchen.commands": ["kitchen"]}}

A consumer may have as many members as it has addresses; each takes the first that is free on its host. Which member
reads which lane is decided by the leases in the consumer's database, as on a broker; senders ask the members for it.
``declare`` adds channels and their readers to the file, where it may write; addresses are given by whoever starts the
system.

**Who may post is not checked**, and nothing is encrypted: a member listens on the address that the registry names,
127.0.0.1 or one of a closed network. Whoever reaches it can send commands.
"""

from collections.abc import Collection, Mapping, Sequence

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.transports.direct.publisher import MAX_BYTES, DirectPublisher
from ftgo_messaging.transports.direct.registry import RegistryFile, registry_at
from ftgo_messaging.transports.direct.subscription import DirectSubscription
from ftgo_messaging.transports.lanes import names_of
from ftgo_messaging.transports.port import Traits
from ftgo_messaging.transports.readers import check_readers

TRAITS = Traits(
    name="direct",
    assigns=False,
    ordered=True,
    replays=False,
    durable=True,  # the sender's outbox keeps what a consumer that is away has not committed
    persistent=True,  # what is confirmed is in the database of every consumer
    stored=False,
    max_bytes=MAX_BYTES,
    takeover_seconds=5.0,  # the longest pause of the sender's relay before it repeats what was not answered
)


class DirectTransport:
    """The services that one registry knows."""

    traits = TRAITS

    def __init__(self, registry: RegistryFile) -> None:
        self._registry = registry
        self.lanes = registry.lanes

    def publisher(self, client: str) -> DirectPublisher:
        return DirectPublisher(self._registry, client)

    def subscription(
        self, consumer: str, channels: Sequence[Channel], instance: str | None = None
    ) -> DirectSubscription:
        return DirectSubscription(self._registry, consumer, [channel.name for channel in channels])

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        return self._registry.declare({channel.name: readers.get(channel.name, ()) for channel in channels})

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        """Nothing is between sender and consumer: what was confirmed is committed."""
        return dict.fromkeys(names_of(readers, self.lanes), 0)

    async def close(self) -> None:
        """Nothing is held: publishers and subscriptions have connections of their own."""


def transport(url: str) -> DirectTransport:
    """Of ``http+static:///PATH/registry.json?lanes=12``, or ``//localhost/PATH``. Reads nothing yet. Raises
    BrokerRefuses for a URL that says something else."""
    return DirectTransport(registry_at(url))
