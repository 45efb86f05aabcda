"""The port: what a broker has to do for the rest of the library. Each package beside this module fills it for one.

A channel has lanes, numbered from 0 (Kafka's partitions). A key belongs to one lane (``lanes.lane_of``), a lane is read
by one member of a consumer at a time, in order: that is the order per key. An adapter knows nothing of handlers,
databases and dead letters; ``consumer.runner`` and ``outbox.delivery`` know nothing of a broker.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Message
from ftgo_messaging.runtime.errors import Told


class BrokerRefuses(Told):
    """The broker is there, and trying again will not help: a wrong password, a queue that was declared otherwise, lanes
    that differ from those that exist. The text is a sentence with cause and cure."""


class Sent(StrEnum):
    """What is known about a message after ``publish``. UNKNOWN: it may have arrived, or not. REFUSED: it has not, and
    the broker was there: the message or its channel is to blame."""

    CONFIRMED = "CONFIRMED"
    UNKNOWN = "UNKNOWN"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Record:
    """As it came, nothing believed yet. The names of headers are CloudEvents' (``id``, ``type``), without what the
    broker's binding puts before them.

    ``origin`` says where it stands, ``CHANNEL/LANE@PLACE``: for people, and to know it again when it comes twice
    without an id. So it is the same for every delivery. ``defect``: why the broker's client could not read it, if that
    is so."""

    channel: str
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    body: bytes | None
    origin: str
    defect: str = ""

    @property
    def lane(self) -> str:
        """``CHANNEL/LANE``."""
        return self.origin.rpartition("@")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records in order per lane, at least one. ``receipt`` is the adapter's own: offsets, delivery tags."""

    records: Sequence[Record]
    receipt: object


class Subscription(Protocol):
    """One member of a consumer. One batch is out at a time: who has taken it settles or releases it before the next
    ``take``, which may be cancelled. Each record is given at least once; again after a crash, with the same origin,
    before later ones of its lane."""

    async def open(self) -> None:
        """Connect, and make what this consumer needs of channels that were declared. Raises TransientError while the
        broker is away, and BrokerRefuses. A channel that was never declared is made, waited for or refused, as the
        broker can."""
        ...

    async def take(self, most: int, wait: float) -> Batch | None:
        """The next records, so many at most, of about 1 MB together (a larger one alone). None after ``wait`` seconds
        without any. Raises TransientError while the broker is away, connects again by itself when it is back, and
        raises BrokerRefuses when it cannot go on."""
        ...

    def settle(self, batch: Batch) -> None:
        """The database has committed it: tell the broker when that is convenient. Never raises."""
        ...

    async def release(self, batch: Batch) -> None:
        """It was not handled: give it again, before anything later of its lanes, perhaps in smaller batches."""
        ...

    async def extend(self, batch: Batch) -> None:
        """It is still at work: where the broker would give it to another member after a while, ask for more time."""
        ...

    async def assign(self, lanes: Collection[str]) -> None:
        """Read these lanes (``CHANNEL/LANE``), and give up all others: nothing of them is in hand when this returns.
        Called between batches, and only where the broker does not assign lanes itself (``Traits.assigns``).

        Of a new lane comes first what an earlier member had in hand, who may be paused, and still connected."""
        ...

    async def close(self) -> None:
        """Tell what is settled, give up what is held: other members get it at once. Never raises. ``open`` may
        follow."""
        ...

    async def backlog(self) -> Mapping[str, int | None]:
        """For each lane that this member reads, how many records wait there, those in hand included. None: not
        known."""
        ...


class Publisher(Protocol):
    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        """Publish in this order and wait for the confirmations. What follows a message of its key that was not
        confirmed may have been sent or not. REFUSED: too large, or of a channel that was never declared. An event that
        nobody reads is CONFIRMED.

        Raises TransientError while no broker answers: nothing is known of any of them. Cancelled, it sends nothing
        more."""
        ...

    async def close(self) -> None:
        """Send what is under way, within 2 s, and disconnect."""
        ...


@dataclass(frozen=True, slots=True)
class Traits:
    """What a broker can do, as its adapter uses it. The conformance suite asks each what it promises here."""

    name: str
    assigns: bool
    """The broker gives each lane to one member. Otherwise a lease in the consumer's database does
    (``consumer.lanes``)."""
    ordered: bool
    """Messages of one key come in order, whatever members come and go."""
    replays: bool
    """A consumer that comes for the first time gets what was published before, as far as it is kept."""
    durable: bool
    """A consumer that was away gets what was published meanwhile."""
    persistent: bool
    """What was confirmed is still there when the broker was killed."""
    stored: bool
    """The broker keeps messages. Otherwise a confirmation says that every consumer has committed."""
    max_bytes: int
    """Of a message, key and headers included; a larger one is refused."""
    takeover_seconds: float
    """How long at most until another member gets what a killed one had in hand."""


class Transport(Protocol):
    """A broker at some address, with so many lanes in each channel."""

    traits: Traits
    lanes: int

    def publisher(self, client: str) -> Publisher:
        """``client`` names the sender in the broker's logs."""
        ...

    def subscription(self, consumer: str, channels: Sequence[Channel], instance: str | None = None) -> Subscription:
        """A member of ``consumer``. ``instance`` names this process over its restarts, where the broker can use
        that."""
        ...

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        """Make what is missing of the channels, for the consumers that read each (by the channel's name). Returns the
        names of the channels that were not there. Raises TransientError while the broker is away, and BrokerRefuses, as
        when what exists differs: it is never changed; or when nobody reads commands or replies (``check_readers``)."""
        ...

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        """Of these channels, by their names with the consumers of each, for every lane (``CHANNEL/LANE``): how many
        records its consumers have not settled yet, added up, those in somebody's hands included. 0 for a channel that
        is not there, and for one without consumers. None: not known at this moment, ask again.

        0 is a promise: nothing that was confirmed before the question will be given to these consumers any more, unless
        one crashes before the broker has heard what it settled; then its database knows the ids. Raises TransientError
        while the broker is away, and BrokerRefuses where it can never tell."""
        ...

    async def close(self) -> None: ...
