"""Reads the lanes that were assigned, each by a task of its own, and makes batches of what they have."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import structlog

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.aws.address import Address
from ftgo_messaging.transports.aws.client import Gone, Link
from ftgo_messaging.transports.aws.sqs.lane import Held, Lane
from ftgo_messaging.transports.aws.sqs.queues import declare, queues_of
from ftgo_messaging.transports.port import Batch, BrokerRefuses, Record

log = structlog.get_logger("ftgo.sqs")

_TAKEN_BYTES = 1_000_000
_HELD_BYTES = 16_000_000
"""In memory, besides what comes in the moment in which it becomes more."""
_CLOSE_SECONDS = 5.0

_Taken = dict[Lane, list[Held]]


class SqsSubscription:
    def __init__(self, address: Address, consumer: str, channels: Sequence[str], instance: str | None = None) -> None:
        self._address = address
        self._consumer = consumer
        self._client = f"{consumer} {instance}" if instance else consumer
        self._channels = channels
        self._link: Link | None = None
        self._urls: dict[str, str] = {}
        self._lanes: dict[str, Lane] = {}
        self._next = 0
        self._out: Batch | None = None
        self._lost = False
        self._news = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make the channels that are missing and this consumer's queues."""
        await self.close()
        # A connection for each lane that waits, and some for what is to be said meanwhile.
        connections = self._address.lanes * len(self._channels) + 24
        self._link = Link(self._address, "sqs", self._client, connections)
        try:
            await self._make(self._link)
        except BaseException:
            await self.close()
            raise

    async def _make(self, link: Link) -> None:
        for channel in self._channels:
            await declare(link, channel, [self._consumer])
            for lane, url in (await queues_of(link, channel, self._consumer)).items():
                self._urls[f"{channel}/{lane}"] = url
        self._lost = False

    async def take(self, most: int, wait: float) -> Batch | None:
        link = self._connected()
        self._put_back()
        await asyncio.sleep(0)  # whoever takes what is there again and again lets others work, too
        if self._lost:
            log.error("queues.lost", consumer=self._consumer, meaning="They are made anew, messages may be missing.")
            await self._make(link)
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            self._keep_up()
            if (batch := self._batch(most)) is not None:
                return batch
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return None

    def settle(self, batch: Batch) -> None:
        if batch is not self._out:
            return
        self._out = None
        for lane, taken in _taken(batch).items():
            if self._lanes.get(lane.name) is lane:
                lane.out.clear()
                lane.settled.extend(taken)
        for lane in self._lanes.values():
            lane.wake.set()

    async def release(self, batch: Batch) -> None:
        if batch is self._out:
            self._put_back()

    async def extend(self, batch: Batch) -> None:
        """Also for what waits behind it. What fails is told, for it comes again at worst."""
        results = await asyncio.gather(*(lane.extend() for lane in self._lanes.values()), return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                log.warning("extending.failed", consumer=self._consumer, error=repr(error))

    async def assign(self, lanes: Collection[str]) -> None:
        link = self._connected()
        self._put_back()
        await self._give_up([name for name in self._lanes if name not in lanes])
        for name in lanes:
            if name not in self._lanes:
                channel, _, number = name.rpartition("/")
                self._lanes[name] = Lane(link, channel, int(number), self._urls[name], self._room)
                self._begin(self._lanes[name])

    async def close(self) -> None:
        link, self._link = self._link, None
        self._put_back()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._give_up(list(self._lanes))
                    await asyncio.gather(*self._ending)
        finally:
            for task in self._ending:
                task.cancel()
            if link is not None:
                await link.close()

    async def backlog(self) -> Mapping[str, int | None]:
        lanes = list(self._lanes.values())
        counts = await asyncio.gather(*(lane.waiting() for lane in lanes))
        return {lane.name: count for lane, count in zip(lanes, counts, strict=True)}

    # -- lanes -------------------------------------------------------------------------------------------------------

    def _connected(self) -> Link:
        if self._link is None:
            raise TransientError("The subscription is not open.")
        return self._link

    def _keep_up(self) -> None:
        """Read each lane. Raises what has ended the reading of one; the next call begins it anew."""
        errors: list[BaseException] = []
        for lane in self._lanes.values():
            lane.drop_what_is_late()
            if lane.task is not None and lane.task.done():
                if error := None if lane.task.cancelled() else lane.task.exception():
                    errors.append(error)
                lane.task = None
            elif lane.task is None:
                self._begin(lane)
        if errors:
            self._lost = any(isinstance(error, Gone) for error in errors)
            refusals = [error for error in errors if isinstance(error, BrokerRefuses)]
            raise (refusals or errors)[0]

    def _begin(self, lane: Lane) -> None:
        lane.task = asyncio.create_task(lane.run(self._news), name=f"sqs-{lane.name}")
        lane.task.add_done_callback(lambda _: self._news.set())

    async def _give_up(self, names: Collection[str]) -> None:
        """Nothing of them is in hand at once, and SQS has all back when that is awaited; cut off, it goes on."""
        ends = [asyncio.create_task(self._lanes.pop(name).end(), name="sqs-end") for name in names]
        self._ending.update(ends)
        for task in ends:
            task.add_done_callback(self._ending.discard)
        await asyncio.shield(asyncio.gather(*ends))

    def _room(self) -> bool:
        return sum(lane.size for lane in self._lanes.values()) < _HELD_BYTES

    # -- batches -----------------------------------------------------------------------------------------------------

    def _batch(self, most: int) -> Batch | None:
        """From each lane in turn what it has, as long as there is room."""
        taken: _Taken = {}
        records: list[Record] = []
        lanes, room = list(self._lanes.values()), _TAKEN_BYTES
        self._next += 1
        for i in range(len(lanes)):
            lane = lanes[(self._next + i) % len(lanes)]
            while lane.held and len(records) < most and (not records or lane.held[0].size <= room):
                held = lane.held.popleft()
                room -= held.size
                records.append(held.record)
                lane.out.append(held)
                taken.setdefault(lane, []).append(held)
        if not records:
            return None
        self._out = Batch(records, taken)
        return self._out

    def _put_back(self) -> None:
        """What was taken and not settled comes first again."""
        batch, self._out = self._out, None
        if batch is not None:
            for lane, taken in _taken(batch).items():
                if self._lanes.get(lane.name) is lane:
                    lane.out.clear()
                    lane.held.extendleft(reversed(taken))
            self._news.set()


def _taken(batch: Batch) -> _Taken:
    return batch.receipt  # type: ignore[return-value]
