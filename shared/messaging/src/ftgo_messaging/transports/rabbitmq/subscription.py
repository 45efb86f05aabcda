"""Reads from RabbitMQ. Each lane has an AMQP channel of its own: when that is closed, RabbitMQ has back all that is
unsettled, and gives the lane to nobody else before."""

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Mapping, Sequence

import structlog
from aiormq import Connection
from aiormq.abc import AbstractChannel, DeliveredMessage
from yarl import URL

from ftgo_messaging.messages.message import size_of_headers
from ftgo_messaging.transports.port import Batch, Record
from ftgo_messaging.transports.rabbitmq.connection import AWAY, channel_of, connect, disconnect, telling
from ftgo_messaging.transports.rabbitmq.lane import PREFETCH, Held, Lane, Receipt
from ftgo_messaging.transports.rabbitmq.records import record
from ftgo_messaging.transports.rabbitmq.topology import Topology, queue_of

log = structlog.get_logger("ftgo.rabbitmq")

_CLOSE_SECONDS = 2.0
_TAKEN_BYTES = 1_000_000
_HELD_BYTES = 32_000_000
"""In memory. RabbitMQ counts records, not bytes: a lane that comes on top is given back, and read record by record, as
long as they are large."""
_LARGE_BYTES = 20_000


class RabbitSubscription:
    def __init__(
        self, url: URL, consumer: str, channels: Sequence[str], lanes: int, instance: str | None = None
    ) -> None:
        self._url = url
        self._client = f"{consumer} {instance}" if instance else consumer
        self._consumer = consumer
        self._channels = channels
        self._all = {
            f"{channel}/{lane}": Lane(f"{channel}/{lane}", channel, queue_of(channel, consumer, lane))
            for channel in channels
            for lane in range(lanes)
        }
        self._lanes = lanes
        self._connection: Connection | None = None
        self._wanted: list[Lane] = []
        self._next = 0
        self._lost = False
        self._out: Batch | None = None
        self._news = asyncio.Event()
        self._acknowledgements: dict[Lane, tuple[AbstractChannel, int]] = {}
        self._acknowledging = asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect, declare the channels and this consumer's queues, and read the lanes that were assigned before."""
        await self.close()
        self._lost = False
        self._connection = await connect(self._url, self._client)
        try:
            self._connection.closing.add_done_callback(self._wake)
            with telling():
                async with Topology(self._connection, self._lanes) as topology:
                    for channel in self._channels:
                        await topology.declare(channel, [self._consumer])
                await self._read()
        except BaseException:
            await self.close()
            raise

    async def take(self, most: int, wait: float) -> Batch | None:
        await self._put_back()
        await asyncio.sleep(0)  # whoever takes what is there again and again lets others work, too
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            await self._keep_up()
            if (batch := self._batch(most)) is not None:
                return batch
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return None

    def settle(self, batch: Batch) -> None:
        """Of each lane the last one is acknowledged, and so all before it: they were settled before."""
        if batch is not self._out:
            return
        self._out = None
        receipt: Receipt = batch.receipt  # type: ignore[assignment]
        for lane, (amqp, taken) in receipt.taken.items():
            if lane.amqp is amqp:
                lane.unsettled -= len(taken)
                lane.size -= sum(held.size for held in taken)
                self._acknowledgements[lane] = (amqp, taken[-1].tag)
        self._work(self._acknowledge())

    async def release(self, batch: Batch) -> None:
        if batch is self._out:
            await self._put_back()

    async def extend(self, batch: Batch) -> None:
        """RabbitMQ leaves 30 minutes for a batch, and cannot be asked for more."""

    async def assign(self, lanes: Collection[str]) -> None:
        await self._put_back()
        given_up = [lane for lane in self._wanted if lane.name not in lanes]
        self._wanted = [lane for lane in self._all.values() if lane.name in lanes]
        with telling():
            await self._acknowledge()
            await asyncio.gather(*(self._give_up(lane) for lane in given_up))
            if self._connection is not None:
                await self._read()

    async def close(self) -> None:
        self._out = None
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(TimeoutError, *AWAY):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._acknowledge()
                    await asyncio.gather(*self._working, return_exceptions=True)
            for task in self._working:
                task.cancel()
            await disconnect(connection)
        self._acknowledgements.clear()
        for lane in self._all.values():
            lane.forget()

    async def backlog(self) -> Mapping[str, int | None]:
        lanes, counts = list(self._wanted), {}
        if self._connection is not None:
            with telling():
                async with Topology(self._connection, self._lanes) as topology:
                    for lane in lanes:
                        counts[lane] = await topology.waiting(lane.queue)
        return {n.name: None if (count := counts.get(n)) is None else count + n.unsettled for n in lanes}

    # -- lanes -------------------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Connect again when that is needed, and read what is to be read."""
        closed = any(lane.amqp is not None and lane.amqp.is_closed for lane in self._wanted)
        if self._lost or closed or self._connection is None or not self._connection.is_opened:
            log.warning("consumer.connects", consumer=self._consumer)
            await self.open()
        with telling():
            for lane in self._wanted:
                if lane.prefetch == 1 and lane.amqp and not lane.unsettled and not lane.large:
                    lane.prefetch = PREFETCH
                    await self._give_up(lane)
            await self._read()

    async def _read(self) -> None:
        await _all_of([self._consume(lane) for lane in self._wanted if lane.amqp is None])

    async def _consume(self, lane: Lane) -> None:
        assert self._connection is not None  # noqa: S101 - open() was called
        amqp = await channel_of(self._connection)
        lane.amqp = amqp
        try:
            amqp.on_consumer_cancel_callbacks.add(self._on_deleted)
            amqp.closing.add_done_callback(self._wake)
            await amqp.basic_qos(prefetch_count=lane.prefetch)

            async def given(delivered: DeliveredMessage) -> None:
                self._given(lane, amqp, delivered)

            await amqp.basic_consume(lane.queue, given)
        except BaseException:
            lane.forget()
            await amqp.close()
            raise

    def _given(self, lane: Lane, amqp: AbstractChannel, delivered: DeliveredMessage) -> None:
        if lane.amqp is not amqp or delivered.delivery_tag is None:
            return
        found = record(lane.channel, lane.name, delivered)
        size = len(found.body or b"") + size_of_headers(found.headers)
        lane.held.append(Held(found, size, delivered.delivery_tag))
        lane.unsettled += 1
        lane.size += size
        lane.large = size > _LARGE_BYTES
        if lane.prefetch > 1 and sum(each.size for each in self._wanted) > _HELD_BYTES and not self._is_out(lane):
            lane.prefetch = 1
            self._give_up(lane)
        self._news.set()

    def _is_out(self, lane: Lane) -> bool:
        return self._out is not None and lane in self._out.receipt.taken  # type: ignore[attr-defined]

    def _give_up(self, lane: Lane) -> asyncio.Future[None]:
        """Nothing of it is in hand at once, and RabbitMQ has all back when that is awaited. Cut off in the middle, it
        goes on: half of a farewell would cost the connection."""
        return asyncio.shield(self._work(self._close(lane, lane.forget())))

    async def _close(self, lane: Lane, amqp: AbstractChannel | None) -> None:
        """What is settled is told before."""
        await self._acknowledge(lane)
        if amqp is not None:
            await amqp.close()

    async def _acknowledge(self, *lanes: Lane) -> None:
        """Of these lanes, or of all. One after the other: the client's queue of frames may turn two about."""
        async with self._acknowledging:
            for lane in lanes or list(self._acknowledgements):
                amqp, tag = self._acknowledgements.pop(lane, (None, 0))
                if amqp is not None:
                    with contextlib.suppress(*AWAY):
                        # Until it is written: whoever closes the connection then loses none.
                        await amqp.basic_ack(tag, multiple=True, wait=True)

    def _work(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    def _on_deleted(self, _: object) -> None:
        """RabbitMQ has ended the reading of a queue, which was deleted, or whose node is gone."""
        self._lost = True
        self._news.set()

    def _wake(self, _: object) -> None:
        self._news.set()

    # -- batches -----------------------------------------------------------------------------------------------------

    def _batch(self, most: int) -> Batch | None:
        """From each lane in turn what it has, as long as there is room."""
        taken: dict[Lane, tuple[AbstractChannel, list[Held]]] = {}
        records: list[Record] = []
        room = _TAKEN_BYTES
        self._next += 1
        for i in range(len(self._wanted)):
            lane = self._wanted[(self._next + i) % len(self._wanted)]
            while lane.held and lane.amqp is not None and len(records) < most:
                if records and lane.held[0].size > room:
                    break
                held = lane.held.popleft()
                room -= held.size
                records.append(held.record)
                taken.setdefault(lane, (lane.amqp, []))[1].append(held)
        if not records:
            return None
        self._out = Batch(records, Receipt(taken))
        return self._out

    async def _put_back(self) -> None:
        """What was taken and not settled comes first again."""
        batch, self._out = self._out, None
        if batch is not None:
            receipt: Receipt = batch.receipt  # type: ignore[assignment]
            for lane, (amqp, taken) in receipt.taken.items():
                if lane.amqp is amqp:
                    lane.held.extendleft(reversed(taken))
            self._news.set()


async def _all_of(work: Sequence[Coroutine[None, None, None]]) -> None:
    """At once; none goes on when this raises."""
    for error in await asyncio.gather(*work, return_exceptions=True):
        if error is not None:
            raise error
