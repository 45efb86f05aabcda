"""Runs one member of a consumer, on whatever broker: reads, handles, looks after itself."""

import asyncio
import contextlib
import time
from collections.abc import Iterable

import structlog

from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.keeper import LaneKeeper
from ftgo_messaging.consumer.lanes import LaneLeases
from ftgo_messaging.consumer.progress import Progress
from ftgo_messaging.consumer.reading import Reading
from ftgo_messaging.consumer.redrive import Redriver
from ftgo_messaging.messages.channel import Channel, Poison
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.runtime.errors import Told
from ftgo_messaging.runtime.loops import backoff, tell_failure
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transports.lanes import names_of
from ftgo_messaging.transports.port import BrokerRefuses, Transport

log = structlog.get_logger("ftgo.consumer")

_STOP_SECONDS = 5.0
_WAIT_SECONDS = 5.0
"""For records, before the subscription is asked again."""
_LONG_SECONDS = 1.0
_BACKLOG_SECONDS = 5.0


class ConsumerStuck(Told):
    """This process cannot go on reading; another one, or the same started anew, can."""


class ChannelConsumer:
    """A member of the consumer ``name``, reading some channels. Delivery is at least once, in order per key; the batch
    processor makes the effects exactly once.

    ``poison`` says what a dead letter means for the later messages of its key. By default commands wait behind it,
    and events and replies, which versions and ids guard, go on.
    ``instance`` names this process over its restarts: one that was killed and started again has its lanes at once
    (Kafka's static membership; elsewhere its leases).
    ``patience``: seconds without progress after which readiness says so and the subscription is begun anew.
    ``lease_seconds``: how long a member that was killed, and does not return, keeps its lanes, where the broker does
    not assign them.
    ``broker`` names the broker, where a consumer may read several: it keeps their leases of lanes and metrics apart."""

    def __init__(
        self,
        name: str,
        channels: Iterable[Channel],
        handlers: MessageHandlers,
        transactions: Transactions,
        transport: Transport,
        *,
        broker: str = "",
        instance: str | None = None,
        max_records: int = 500,
        poison: Poison | None = None,
        patience: float = 60.0,
        lease_seconds: float = 10.0,
    ) -> None:
        channels = tuple(channels)
        self.name = name
        self.channels = tuple(c.name for c in channels)
        self.subscription = transport.subscription(name, channels, instance)
        processor = BatchProcessor(handlers, transactions, [c.name for c in channels if _parks(c, poison)])
        self._redriver = Redriver(processor)
        self._progress = Progress(name, patience, broker=broker)
        self._keeper: LaneKeeper | None = None
        if not transport.traits.assigns:
            lanes = names_of(self.channels, transport.lanes)
            of = f"{name}@{broker}" if broker else name
            leases = LaneLeases(of, lanes, lease_seconds, instance=instance)
            self._keeper = LaneKeeper(leases, transactions.engine, self.subscription, self._interrupt)
        fence = None if self._keeper is None else self._keeper.fence
        self._reading = Reading(name, processor, self.subscription, self._progress, max_records, fence)
        self._task: asyncio.Task[None] | None = None
        self._refusal: BrokerRefuses | None = None
        self.running = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to read; while the broker is away, keep trying. Returns at once."""
        self._reading.stopping.clear()
        self._refusal = None
        self._task = asyncio.create_task(self._run(), name=f"consumer-{self.name}")

    async def _run(self) -> None:
        if self._keeper is None:
            await self._read()
            return
        keeping = asyncio.create_task(self._keeper.run(), name=f"lanes-{self.name}")
        try:
            await self._read()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    def _interrupt(self) -> None:
        self._reading.interrupt()

    async def _read(self) -> None:
        failures = 0
        while not self._reading.stopping.is_set():
            try:
                with contained():
                    if not self.running:
                        await self._open()
                    if self._keeper is not None:
                        await self._keeper.apply()
                    await self._reading.round(_WAIT_SECONDS)
                failures = 0
            except BrokerRefuses as refusal:
                log.error("consumer.refused", consumer=self.name, error=str(refusal))
                self._refusal = refusal
                return
            except Exception as error:
                failures += 1
                tell_failure("consumer", error, consumer=self.name, attempt=failures)
                await asyncio.sleep(backoff(failures))

    async def _open(self) -> None:
        await self.subscription.open()
        self._progress.begin()
        self.running = True

    async def stop(self) -> None:
        """Finish the batch in hand (5 s at most), tell the broker, and leave. A batch that does not end in time is
        rolled back, and comes again."""
        self._reading.stopping.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reading.idle.wait(), _STOP_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.subscription.close()
        if self._keeper is not None:
            await self._keeper.leave()
        self.running = False

    async def watch(self, every: float | None = None) -> None:
        """Until cancelled: handle the dead letters whose redrive was ordered, measure the backlog, and begin the
        subscription anew when it makes no progress. Raises ConsumerStuck when that does not help either, and when the
        broker refuses."""
        redriving = asyncio.create_task(self._redriver.run(), name=f"redrive-{self.name}")
        try:
            await self._watch(every or self._progress.patience / 12)
        finally:
            redriving.cancel()
            await asyncio.gather(redriving, return_exceptions=True)

    async def _watch(self, every: float) -> None:
        begun_anew: int | None = None
        while True:
            await self._sleep(every)
            if self._refusal is not None:
                raise ConsumerStuck(str(self._refusal)) from self._refusal
            if not self.running:
                continue
            await self._look()
            if self._progress.stuck or not self._reads:
                if begun_anew == self._progress.steps:
                    raise ConsumerStuck(f"consumer {self.name} makes no progress, and beginning anew did not help")
                begun_anew = self._progress.steps
                log.error("consumer.stuck", consumer=self.name, seconds=round(self._progress.age))
                await self.stop()
                await self.start()

    async def _sleep(self, seconds: float) -> None:
        """Or less, when the reading ends."""
        if self._task is None or self._task.done():
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait({self._task}, timeout=seconds)

    async def _look(self) -> None:
        batch = self._reading.in_hand
        if batch is not None and time.monotonic() - self._reading.since > _LONG_SECONDS:
            await self.subscription.extend(batch)
        try:
            async with asyncio.timeout(_BACKLOG_SECONDS):
                backlog = await self.subscription.backlog()
        except Exception as error:
            log.info("consumer.backlog_not_known", consumer=self.name, error=repr(error))
            backlog = None
        self._progress.observe(backlog)

    @property
    def attempts(self) -> int:
        """How often the batch that comes next has failed."""
        return self._reading.attempts

    @property
    def progress_ok(self) -> bool:
        """Connected and reading, the last batch did not fail, and there is progress if there is anything to do."""
        return self.running and self._reads and self.attempts == 0 and not self._progress.late

    @property
    def _reads(self) -> bool:
        return self._task is not None and not self._task.done()


def _parks(channel: Channel, poison: Poison | None) -> bool:
    if poison is None:
        return channel.kind is Kind.COMMAND
    return poison is Poison.PARK_KEY
