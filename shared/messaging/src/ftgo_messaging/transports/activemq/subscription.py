"""Reads the lanes that it is told to, each by a subscription of its own, over one connection."""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from stompman import AckFrame, MessageFrame, SubscribeFrame, UnsubscribeFrame

from ftgo_messaging.messages.message import size_of_headers
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.activemq.link import Address, Link
from ftgo_messaging.transports.activemq.names import MARKER, declare, queue
from ftgo_messaging.transports.activemq.wire import record_of
from ftgo_messaging.transports.port import Batch, Record, Sent

_TAKE_BYTES = 1_000_000
_HELD_BYTES = 3_000_000
"""With more in memory nothing is read from the connection, and the broker waits."""
_PREFETCH = 600
"""Records that the broker sends ahead, over all lanes; a lane gets 10 to 100 of them."""
_KNOWN_AFTER = 1.0
"""Seconds after which a lane's first records have come, if it has any."""


@dataclass(slots=True, eq=False)
class _Lane:
    """What one subscription at the broker reads. ``unsettled``: records that it has given and that are not settled."""

    name: str
    channel: str
    prefetch: int
    since: float
    unsettled: int = 0


@dataclass(slots=True, eq=False)
class _Item:
    """What came: a record, or a queue's marker (None), with what acknowledges it and all before it in its lane."""

    id: str
    ack: str
    record: Record | None
    size: int


class ActiveMqSubscription:
    """Acknowledges by ``ack:client``: one ACK for the last record of a lane covers the earlier ones. Never a NACK: that
    makes a dead letter. What is not acknowledged comes again in order, when its lane or the connection is given up;
    the broker makes no dead letters of it, however often that happens: for STOMP it has no such limit."""

    def __init__(self, address: Address, consumer: str, channels: Sequence[str], lanes: int) -> None:
        self._address = address
        self._consumer = consumer
        self._channels = channels
        self._number_of_lanes = lanes
        self._wanted: list[str] = []
        self._link: Link | None = None
        self._lanes: dict[str, _Lane] = {}  # by the id of the subscription at the broker, never used twice
        self._items: deque[_Item] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._asking = False
        self._numbers = count(1)

    async def open(self) -> None:
        await self.close()
        await self._connected()

    async def take(self, most: int, wait: float) -> Batch | None:
        link = await self._connected()
        batch = None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while not link.lost.is_set() and (batch := self._batch(link, most)) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        if link.lost.is_set():
            # Its records come again, over another connection.
            self._forget()
            raise TransientError(f"ActiveMQ is away: {link.why}")
        return batch

    def _batch(self, link: Link, most: int) -> Batch | None:
        items: list[_Item] = []
        size = records = 0
        while self._items and records < most and (not records or size + self._items[0].size <= _TAKE_BYTES):
            item = self._items.popleft()
            items.append(item)
            size += item.size
            records += item.record is not None
        self._bytes -= size
        self._room.set()
        batch = Batch([item.record for item in items if item.record is not None], (link, items))
        if not records:
            self.settle(batch)  # markers only, or nothing: all before them in their lanes is settled
            return None
        return batch

    def settle(self, batch: Batch) -> None:
        link, items = self._mine(batch)
        for name, ack in {item.id: item.ack for item in items}.items():
            # At once: it waits for nothing, and is sent before anything that is asked later.
            link.write(AckFrame(headers={"id": ack, "subscription": name}))
        for item in items:
            self._lanes[item.id].unsettled -= item.record is not None

    async def release(self, batch: Batch) -> None:
        _, items = self._mine(batch)
        self._items.extendleft(reversed(items))
        self._bytes += sum(item.size for item in items)
        self._arrived.set()

    async def extend(self, batch: Batch) -> None:
        """The broker waits for as long as the connection lives."""

    def _mine(self, batch: Batch) -> tuple[Link, list[_Item]]:
        """What of the batch is still ours: its connection is there, and its lanes were not given up."""
        receipt: tuple[Link, list[_Item]] = batch.receipt  # type: ignore[assignment]
        link, items = receipt
        return link, [item for item in items if link is self._link and item.id in self._lanes]

    async def assign(self, lanes: Collection[str]) -> None:
        self._wanted = sorted(lanes)
        link = await self._connected()
        kept = {lane.name for lane in self._lanes.values()} & set(self._wanted)
        gone = [name for name, lane in self._lanes.items() if lane.name not in kept]
        for name in gone:
            del self._lanes[name]
        self._items = deque(item for item in self._items if item.id in self._lanes)
        self._bytes = sum(item.size for item in self._items)
        try:
            await self._told(link, gone, [lane for lane in self._wanted if lane not in kept])
        except BaseException:
            # Nobody knows what the broker gives us: from the beginning, over another connection.
            self._forget()
            raise

    async def _told(self, link: Link, gone: Sequence[str], new: Sequence[str]) -> None:
        """Give up subscriptions, and begin others."""
        self._asking = True
        self._room.set()  # or no receipt would be read
        try:
            await link.sure(*[link.ask(UnsubscribeFrame, {"id": name}) for name in gone])
        finally:
            self._asking = False
        prefetch = min(100, max(10, _PREFETCH // max(1, len(self._wanted))))
        for lane in new:
            name = f"l{next(self._numbers)}"
            channel, _, number = lane.rpartition("/")
            self._lanes[name] = _Lane(lane, channel, prefetch, time.monotonic())
            place = queue(self._consumer, channel, int(number))
            # Exclusive: a member that stands still keeps its lanes until the broker has dropped its connection.
            # Otherwise its successor would get what comes after the records that the other has in hand.
            how = {"ack": "client", "activemq.prefetchSize": str(prefetch), "activemq.exclusive": "true"}
            answer = link.ask(SubscribeFrame, {"id": name, "destination": place, **how})
            answer.add_done_callback(lambda told: link.abort(link.said) if told.result() is Sent.REFUSED else None)

    async def _receive(self, frame: MessageFrame) -> None:
        lane = self._lanes.get(frame.headers["subscription"])
        if lane is None:
            return  # given up meanwhile
        marker = frame.headers.get(MARKER) == str(self._number_of_lanes) and not frame.body
        record = None if marker else record_of(frame, lane.channel, lane.name)
        size = len(frame.body) + (0 if record is None else size_of_headers(record.headers))
        self._items.append(_Item(frame.headers["subscription"], frame.headers["ack"], record, size))
        self._bytes += size
        lane.unsettled += not marker
        self._arrived.set()
        link = self._link
        if self._bytes > _HELD_BYTES and not self._asking and link is not None:
            link.held_back = True
            self._room.clear()
            await self._room.wait()
            link.held_back = False

    async def close(self) -> None:
        link, self._link = self._link, None
        self._wanted = []
        self._forget()
        if link is not None:
            await link.close()

    async def backlog(self) -> Mapping[str, int | None]:
        """STOMP has no count. The broker gives up to ``prefetch`` records of a lane: with fewer there are no others."""
        found: dict[str, int | None] = dict.fromkeys(self._wanted)
        link = self._link
        if link is not None and not link.lost.is_set() and not link.held_back:
            before = time.monotonic() - _KNOWN_AFTER
            known = [lane for lane in self._lanes.values() if lane.since < before and lane.unsettled < lane.prefetch]
            found |= {lane.name: lane.unsettled for lane in known}
        return found

    async def _connected(self) -> Link:
        if self._link is not None and not self._link.lost.is_set():
            return self._link
        self._forget()
        link = await Link.connect(self._address)
        try:
            for channel in self._channels:
                await declare(link, channel, [self._consumer], self._number_of_lanes, make=False)
            link.on_message, link.on_lost = self._receive, self._arrived.set
            self._link = link
            await self._told(link, [], self._wanted)
        except BaseException:
            self._forget()
            link.abort()
            raise
        return link

    def _forget(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort()
        self._lanes = {}
        self._items.clear()
        self._bytes = 0
        self._room.set()
