"""The smallest transport: a broker in this process, for tests, and as the example of how to write one.

A queue for each consumer and lane, from ``declare`` or ``open`` on. A record stays in its queue until it is settled: so
what was taken and not settled comes again, first of its lane, and no more than one batch of each member is in hand.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Message, size_of
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.lanes import LANES, lane_of
from ftgo_messaging.transports.port import Batch, BrokerRefuses, Record, Sent, Traits
from ftgo_messaging.transports.readers import check_readers

TRAITS = Traits(
    name="memory",
    assigns=False,
    ordered=True,
    replays=False,
    durable=True,
    persistent=False,
    stored=True,
    max_bytes=1_000_000,
    takeover_seconds=0.0,
)
_BATCH_BYTES = 1_000_000


class MemoryBroker:
    """What several transports share. ``away``: as if it could not be reached; what it has it keeps."""

    def __init__(self, lanes: int = LANES) -> None:
        self.lanes = lanes
        self.channels: dict[str, set[str]] = {}
        """The consumers of each channel that exists."""
        self.queues: dict[tuple[str, str], deque[Record]] = defaultdict(deque)
        """Of each consumer and lane."""
        self.away = False
        self.changed = asyncio.Event()
        """Set, and made anew, whenever a member that waits should look again."""
        self._places: Counter[str] = Counter()

    def reach(self) -> None:
        if self.away:
            raise TransientError("the memory broker is away")

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def put(self, message: Message) -> Sent:
        """Into the queue of each consumer of its channel."""
        if message.channel not in self.channels or size_of(message) > TRAITS.max_bytes:
            return Sent.REFUSED
        lane = f"{message.channel}/{lane_of(message.key, self.lanes)}"
        self._places[lane] += 1
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        origin = f"{lane}@{self._places[lane]}"
        record = Record(message.channel, message.key.encode(), headers, message.body, origin)
        for consumer in self.channels[message.channel]:
            self.queues[consumer, lane].append(record)
        return Sent.CONFIRMED


class MemoryPublisher:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        await asyncio.sleep(0)  # whoever was cancelled sends nothing
        self._broker.reach()
        sent = [self._broker.put(message) for message in messages]
        self._broker.wake()
        return sent

    async def close(self) -> None: ...


class MemorySubscription:
    def __init__(self, broker: MemoryBroker, consumer: str, channels: Sequence[str]) -> None:
        self._broker = broker
        self._consumer = consumer
        self._channels = channels
        self._lanes: list[str] = []

    async def open(self) -> None:
        self._broker.reach()
        for channel in self._channels:
            if channel not in self._broker.channels:
                raise BrokerRefuses(f"There is no channel {channel}: declare it first.")
            self._broker.channels[channel].add(self._consumer)

    async def take(self, most: int, wait: float) -> Batch | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while True:
                    changed = self._broker.changed
                    if records := self._first(most):
                        return Batch(records, None)
                    await changed.wait()
        return None

    def _first(self, most: int) -> list[Record]:
        """The first records of the lanes, in turn: with the next batch other lanes come first."""
        self._broker.reach()
        found: list[Record] = []
        size = 0
        for lane in list(self._lanes):
            for record in self._broker.queues[self._consumer, lane]:
                size += len(record.body or b"")
                if found and (len(found) == most or size > _BATCH_BYTES):
                    return found
                if not found or found[-1].lane != lane:
                    self._lanes.remove(lane)
                    self._lanes.append(lane)
                found.append(record)
        return found

    def settle(self, batch: Batch) -> None:
        for record in batch.records:
            queue = self._broker.queues[self._consumer, record.lane]
            # Nothing, when the lane was given up: another member may have it, or have settled it.
            if record.lane in self._lanes and queue and queue[0] is record and not self._broker.away:
                queue.popleft()

    async def release(self, batch: Batch) -> None:
        # Its records stand first in their queues still, but their lanes must be the next ones, too.
        lanes = dict.fromkeys(record.lane for record in batch.records)
        self._lanes.sort(key=lambda lane: lane not in lanes)

    async def extend(self, batch: Batch) -> None: ...

    async def assign(self, lanes: Collection[str]) -> None:
        self._lanes = sorted(lanes)

    async def close(self) -> None:
        self._lanes = []

    async def backlog(self) -> Mapping[str, int | None]:
        return {lane: len(self._broker.queues[self._consumer, lane]) for lane in self._lanes}


class MemoryTransport:
    traits = TRAITS

    def __init__(self, broker: MemoryBroker, lanes: int) -> None:
        self._broker = broker
        self.lanes = lanes

    def publisher(self, client: str) -> MemoryPublisher:
        return MemoryPublisher(self._broker)

    def subscription(
        self, consumer: str, channels: Sequence[Channel], instance: str | None = None
    ) -> MemorySubscription:
        return MemorySubscription(self._broker, consumer, [channel.name for channel in channels])

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        check_readers(channels, readers)
        self._broker.reach()
        if self.lanes != self._broker.lanes:
            raise BrokerRefuses(
                f"The broker has {self._broker.lanes} lanes for each channel, not {self.lanes}: another number moves "
                f"keys to other lanes. Put ?lanes={self._broker.lanes} behind the address."
            )
        missing = [channel.name for channel in channels if channel.name not in self._broker.channels]
        for channel in channels:
            self._broker.channels.setdefault(channel.name, set()).update(readers.get(channel.name, ()))
        return missing

    async def unread(self, readers: Mapping[str, Collection[str]]) -> Mapping[str, int | None]:
        self._broker.reach()
        queues = self._broker.queues
        return {
            f"{channel}/{lane}": sum(len(queues.get((consumer, f"{channel}/{lane}"), ())) for consumer in consumers)
            for channel, consumers in readers.items()
            for lane in range(self.lanes)
        }

    async def close(self) -> None: ...


_BROKERS: dict[str, MemoryBroker] = {}


def transport(url: str) -> MemoryTransport:
    """``memory://NAME?lanes=12``: all who use the same name in this process share a broker."""
    parts = urlsplit(url)
    lanes = int(parse_qs(parts.query).get("lanes", [str(LANES)])[0])
    return MemoryTransport(_BROKERS.setdefault(parts.netloc, MemoryBroker(lanes)), lanes)
