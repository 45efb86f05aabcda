"""A member of a consumer: reads the lanes that it was assigned, and moves the group behind what is settled."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.port import Batch, BrokerRefuses, Record
from ftgo_messaging.transports.valkey.entries import Lane, fetch
from ftgo_messaging.transports.valkey.server import PATIENCE, Address, connect, reach
from ftgo_messaging.transports.valkey.streams import CUT_EVERY, ask, cut, groups_of, make, position_of

log = structlog.get_logger("ftgo.valkey")

_TELL_AFTER = 0.1
_STOP_SECONDS = 2.0

_Taken = tuple[Record, Lane, str]


class ValkeySubscription:
    """Uses two connections: one waits for entries while the other settles."""

    def __init__(self, address: Address, consumer: str, channels: Sequence[str], instance: str | None) -> None:
        self._address = address
        self._consumer = consumer
        self._channels = channels
        self._name = f"{consumer}/{instance or new_id()}"
        self._client: Redis | None = None
        self._lanes: dict[str, Lane] = {}
        self._turn = 0
        self._held: list[_Taken] = []
        self._untold: dict[Lane, None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._one_tells = asyncio.Lock()
        self._look_at = 0.0

    async def open(self) -> None:
        if self._client is None:
            client = connect(self._address, self._name)
            try:
                await self._make(client)
            except BaseException:
                await client.aclose()
                raise
            self._client = client

    async def take(self, most: int, wait: float) -> Batch | None:
        if not self._held:
            try:
                await self._take_from(self._connected(), most, wait)
            except TransientError:
                # The broker may come back without its last moments: its groups say where to go on.
                self._lanes = {name: Lane(lane.channel, lane.number) for name, lane in self._lanes.items()}
                self._untold.clear()
                raise
        taken, self._held = self._held[:most], self._held[most:]
        return Batch([record for record, _, _ in taken], taken) if taken else None

    async def _take_from(self, client: Redis, most: int, wait: float) -> None:
        if not self._lanes:
            await asyncio.sleep(wait)
            return
        async with reach(self._address, PATIENCE):
            await self._look_after(client)
            await self._locate(client)
            # Another one is the first each time: a take of few records would come to the end of no other.
            self._turn += 1
            lanes = list(self._lanes.values())
            begin = self._turn % len(lanes)
            lanes = lanes[begin:] + lanes[:begin]
            self._held = await fetch(client, lanes, most)
        if self._held or wait <= 0:
            return
        async with reach(self._address, wait + PATIENCE):
            # It only tells that there is something: what comes is small in number, and read again.
            streams = [*(lane.stream for lane in lanes), *(lane.at for lane in lanes)]
            milliseconds = max(1, int(wait * 1000))
            if await ask(client, "XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", *streams):
                self._held = await fetch(client, lanes, most)

    def settle(self, batch: Batch) -> None:
        taken: list[_Taken] = batch.receipt  # type: ignore[assignment]
        for _, lane, place in taken:
            if self._lanes.get(lane.name) is lane:
                lane.settled = place
                if lane.count is not None:
                    lane.count += 1
                self._untold[lane] = None
        self._tell_soon()

    async def release(self, batch: Batch) -> None:
        taken: list[_Taken] = batch.receipt  # type: ignore[assignment]
        self._held = self._ours([*taken, *self._held])

    async def extend(self, batch: Batch) -> None:
        """There is nothing to ask for: the broker gives it to nobody."""

    async def assign(self, lanes: Collection[str]) -> None:
        given_up = self._lanes.keys() - set(lanes)
        if given_up:
            await self._tell()  # where a successor begins
        for name in given_up:
            self._untold.pop(self._lanes.pop(name), None)
        for name in lanes:
            if name not in self._lanes:
                channel, _, number = name.rpartition("/")
                self._lanes[name] = Lane(channel, int(number))
        self._held = self._ours(self._held)

    async def close(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            if self._telling is not None:
                self._telling.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._tell()
        finally:
            self._client, self._telling = None, None
            self._lanes, self._held, self._untold = {}, [], {}
            await client.aclose()

    async def backlog(self) -> Mapping[str, int | None]:
        lanes = list(self._lanes.values())
        if self._client is None or not lanes:
            return {}
        with suppress(TransientError, BrokerRefuses):
            async with reach(self._address, PATIENCE):
                found = await groups_of(self._client, [lane.stream for lane in lanes])
                groups = [(at or {}).get(self._consumer, {}) for at in found]
                return {lane.name: group.get("lag") for lane, group in zip(lanes, groups, strict=True)}
        return {lane.name: None for lane in lanes}

    def _connected(self) -> Redis:
        if self._client is None:
            raise TransientError("The subscription is not open.")
        return self._client

    def _ours(self, taken: Sequence[_Taken]) -> list[_Taken]:
        return [each for each in taken if self._lanes.get(each[1].name) is each[1]]

    async def _make(self, client: Redis) -> None:
        async with reach(self._address, PATIENCE):
            await make(client, {channel: [self._consumer] for channel in self._channels}, self._address.lanes)

    async def _locate(self, client: Redis) -> None:
        """Ask for the group's position on lanes that are new to us."""
        for lane in [lane for lane in self._lanes.values() if not lane.at]:
            group = await position_of(client, lane.stream, self._consumer)
            if group is None:
                self._look_at = 0.0
                raise TransientError(f"{self._consumer} has no group on {lane.stream}: it is made anew.")
            lane.at = lane.settled = group[0]
            lane.count = group[1]

    async def _look_after(self, client: Redis) -> None:
        """At times, and when settling failed: delete what nobody needs, and make again what is missing."""
        now = asyncio.get_running_loop().time()
        if self._untold:
            self._tell_soon()
        if now < self._look_at:
            return
        lanes = list(self._lanes.values())
        found = await cut(client, [lane.stream for lane in lanes], self._address.keep)
        lost = [lane for lane, groups in zip(lanes, found, strict=True) if self._consumer not in (groups or {})]
        if lost:
            log.error(
                "streams.lost",
                consumer=self._consumer,
                lanes=[lane.name for lane in lost],
                meaning="The broker has lost them or their groups: they are made anew, messages may be missing. "
                "Is its append-only file on?",
            )
            await self._make(client)
            for lane in lost:
                lane.at, lane.count = "", None
                self._untold.pop(lane, None)
        self._look_at = now + CUT_EVERY

    def _tell_soon(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_later())

    async def _tell_later(self) -> None:
        await asyncio.sleep(_TELL_AFTER)
        await self._tell()

    async def _tell(self) -> None:
        """Move the group's positions behind what is settled. What fails is told later. Raises nothing."""
        async with self._one_tells:
            client, lanes = self._client, list(self._untold)
            if client is None or not lanes:
                return
            told = {lane: lane.settled for lane in lanes}
            try:
                async with asyncio.timeout(PATIENCE), client.pipeline(transaction=False) as pipe:
                    for lane in lanes:
                        count = () if lane.count is None else ("ENTRIESREAD", lane.count)
                        pipe.execute_command("XGROUP SETID", lane.stream, self._consumer, lane.settled, *count)
                    answers = await pipe.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                log.warning("settling.failed", consumer=self._consumer, error=repr(error))
                return
            for lane, answer in zip(lanes, answers, strict=True):
                if isinstance(answer, ResponseError):
                    self._look_at = 0.0
                    log.warning("settling.failed", consumer=self._consumer, lane=lane.name, error=str(answer))
                elif lane.settled == told[lane]:
                    self._untold.pop(lane, None)
