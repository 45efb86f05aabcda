"""A member of a consumer: it asks for records of the lanes that it was given, and for those only."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

import nats.errors
from nats.aio.msg import Msg

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.nats.connection import Address, Connection, Refused
from ftgo_messaging.transports.nats.declaring import declare_readers, lanes_of_stream
from ftgo_messaging.transports.nats.lane import WINDOW, Item, Lane
from ftgo_messaging.transports.nats.wire import durable_of, stream_of
from ftgo_messaging.transports.port import Batch

_BATCH_BYTES = 1_000_000
_REQUEST_BYTES = 256 * 1024
"""Of a lane's open request: with 36 lanes 9 MB at most wait in memory. A larger record is asked for alone."""
_REQUEST_SECONDS = 5.0
"""An idle lane asks again every 5 s. So long a successor waits for a member that is paused."""
_PATIENCE = _REQUEST_SECONDS + 2
_LOOK_SECONDS = 0.1
_TELL_SECONDS = 0.02


class NatsSubscription:
    """Whoever gets a lane resets its durable to what is acknowledged: what the predecessor had in hand comes at once,
    in order, before anything later. A late acknowledgement of the predecessor does no harm: it says what has been
    committed."""

    def __init__(self, address: Address, consumer: str, channels: Sequence[str], name: str) -> None:
        self._address, self._consumer, self._channels, self._name = address, consumer, channels, name
        self._link: Connection | None = None
        self._assigned: frozenset[str] = frozenset()
        self._lanes: dict[str, Lane] = {}
        self._acks: deque[str] = deque()
        self._telling: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._turn = 0

    async def open(self) -> None:
        await self._connected()

    async def _connected(self) -> Connection:
        if self._link is not None and self._link.up:
            return self._link
        await self._drop()
        link = await Connection(self._address, self._name, self._wake.set).connect()
        try:
            for channel in self._channels:
                await lanes_of_stream(link, channel, self._address)
                await declare_readers(link, channel, [self._consumer], self._address.lanes)
        except BaseException:
            await link.close()
            raise
        self._link = link
        return link

    async def assign(self, lanes: Collection[str]) -> None:
        self._assigned = frozenset(lanes)
        await self._ready()

    async def take(self, most: int, wait: float) -> Batch | None:
        deadline = time.monotonic() + wait
        while True:
            self._wake.clear()
            await self._ready()
            if items := self._next(most):
                return Batch([item.record for _, item in items], items)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if any(lane.inbox is None for lane in self._lanes.values()):
                left = min(left, _LOOK_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    def settle(self, batch: Batch) -> None:
        for lane, item in self._held(batch):
            lane.settled = item.place
            self._acks.append(item.ack)
        if self._acks and (self._telling is None or self._telling.done()):
            self._telling = asyncio.ensure_future(self._tell_soon())

    async def release(self, batch: Batch) -> None:
        for lane, item in reversed(self._held(batch)):
            lane.items.appendleft(item)
        self._wake.set()

    async def extend(self, batch: Batch) -> None:
        """Nothing to do: what the server gives again after a while comes to this member, who knows that it has it."""

    async def close(self) -> None:
        if self._link is not None and self._link.up:
            await self._tell()
            await self._link.flush()
        self._assigned = frozenset()
        await self._drop()

    async def backlog(self) -> Mapping[str, int | None]:
        lanes = list(self._lanes.values())
        found = await asyncio.gather(*(self._waiting(lane) for lane in lanes))
        return dict.fromkeys(self._assigned) | dict(zip((lane.name for lane in lanes), found, strict=True))

    async def _waiting(self, lane: Lane) -> int | None:
        if self._link is None:
            return None
        try:
            info = await self._link.api(f"CONSUMER.INFO.{lane.stream}.{lane.durable}")
        except (TransientError, Refused):
            return None
        return int(info["num_pending"]) + int(info["num_ack_pending"])

    def _held(self, batch: Batch) -> list[tuple[Lane, Item]]:
        """Of the batch, what is of lanes that are still the same: not given up, not of a connection that is gone."""
        items = cast(list[tuple[Lane, Item]], batch.receipt)
        return [(lane, item) for lane, item in items if self._lanes.get(lane.name) is lane]

    def _next(self, most: int) -> list[tuple[Lane, Item]]:
        """The lanes take turns in being the first."""
        lanes = [lane for lane in self._lanes.values() if lane.items]
        self._turn += 1
        found: list[tuple[Lane, Item]] = []
        size = 0
        for i in range(len(lanes)):
            lane = lanes[(i + self._turn) % len(lanes)]
            while lane.items and len(found) < most and (not found or size + lane.items[0].size <= _BATCH_BYTES):
                found.append((lane, lane.items.popleft()))
                size += found[-1][1].size
        return found

    async def _ready(self) -> None:
        """Make it so that the lanes are those that were assigned, and each has a request open, as far as there is room.
        Raises TransientError and BrokerRefuses; what could not be done is done the next time."""
        if others := self._lanes.keys() - self._assigned:
            await self._give_up(others)
        link = await self._connected()
        try:
            for name in sorted(self._assigned - self._lanes.keys()):
                channel, _, number = name.rpartition("/")
                durable = durable_of(self._consumer, int(number))
                self._lanes[name] = Lane(channel, int(number), stream_of(channel), durable)
            for lane in list(self._lanes.values()):
                if lane.gone:
                    raise TransientError(f"somebody has deleted the durable {lane.durable} of {lane.stream}")
                if lane.inbox is None or lane.gap:
                    await self._begin(link, lane)
                await self._ask(link, lane)
        except (OSError, nats.errors.Error, Refused) as error:
            await self._drop()
            raise TransientError(f"NATS does not give its lanes: {error!r}") from error
        except TransientError:
            await self._drop()
            raise

    async def _begin(self, link: Connection, lane: Lane) -> None:
        """Reset its durable, if nobody has a request open there: that one would get what is given then. It is of a
        member that is paused, or does not know yet that the lane is another's. Who is dead, or gave it up, has none."""
        if lane.inbox is not None:
            await lane.inbox.unsubscribe()
            lane.inbox = None
            lane.asked = 0.0
        lane.asked = lane.asked or time.monotonic()
        durable = f"{lane.stream}.{lane.durable}"
        if (await link.api(f"CONSUMER.INFO.{durable}"))["num_waiting"] and time.monotonic() < lane.asked + _PATIENCE:
            return
        await link.api(f"CONSUMER.RESET.{durable}")
        lane.begin(await link.client.subscribe(link.client.new_inbox(), cb=partial(self._receive, lane)))

    async def _give_up(self, lanes: Collection[str]) -> None:
        """Their open requests end with the inboxes; a successor begins with what is not acknowledged then."""
        if self._link is not None and self._link.up:
            try:
                for name in lanes:
                    lane = self._lanes[name]
                    inbox, lane.inbox = lane.inbox, None
                    if inbox is not None:
                        await inbox.unsubscribe()
                await self._tell()
                await self._link.flush()
            except (OSError, nats.errors.Error):
                await self._drop()
        for name in lanes:
            self._lanes.pop(name, None)

    async def _ask(self, link: Connection, lane: Lane) -> None:
        """Keep one request open, for as many as there is room. It also ends when it should have ended long ago."""
        now = time.monotonic()
        if (lane.wanted > 0 and now < lane.until) or len(lane.items) > WINDOW // 2 or lane.inbox is None:
            return
        if lane.one and lane.items:
            return
        count = 1 if lane.one else WINDOW - len(lane.items)
        request = {"batch": count, "expires": int(_REQUEST_SECONDS * 1e9)}
        if not lane.one:
            request["max_bytes"] = _REQUEST_BYTES
        lane.wanted, lane.until, lane.one = count, now + _REQUEST_SECONDS + 2, False
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{lane.stream}.{lane.durable}"
        await link.client.publish(subject, json.dumps(request).encode(), reply=lane.inbox.subject)

    async def _receive(self, lane: Lane, msg: Msg) -> None:
        if ack := lane.receive(msg):
            self._acks.append(ack)
            await self._tell()
        self._wake.set()

    async def _tell_soon(self) -> None:
        await asyncio.sleep(_TELL_SECONDS)
        await self._tell()

    async def _tell(self) -> None:
        """Send the acknowledgements. What cannot be sent is forgotten: the connection is gone, so it comes again."""
        while self._acks and self._link is not None:
            ack = self._acks.popleft()
            with suppress(OSError, nats.errors.Error):
                await self._link.client.publish(ack)

    async def _drop(self) -> None:
        """With the connection goes what came over it."""
        link, self._link = self._link, None
        self._lanes.clear()
        self._acks.clear()
        if self._telling is not None:
            self._telling.cancel()
        if link is not None:
            await link.close()
