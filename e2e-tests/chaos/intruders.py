"""Strangers at the broker: they publish what was published before, or what nobody should, and disturb the consumers.

They reach the broker past the proxy and belong to no service.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer
from topology import LANES, SUBSCRIPTIONS, TOPICS
from wires import Raw, Wire
from wires.kafka import KafkaWire, stop

Tell = Callable[..., None]
_TROUBLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class _Intruder:
    """Begins again when the broker was away, and every 15 s with clients of its own making: one that hangs after a
    broker's crash hangs for a moment only. What is waiting, and how far it has read, stays."""

    session = 15.0

    def __init__(self, wire: Wire, dice: random.Random, tell: Tell) -> None:
        self.wire = wire
        self.dice = dice
        self.tell = tell
        self.positions: dict[Any, Any] = {}

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.session):
                    await self.act()
            except (*self.wire.trouble, *_TROUBLE):
                await asyncio.sleep(1)

    async def act(self) -> None:
        raise NotImplementedError


class Duplicates(_Intruder):
    """Publishes a share of all records a second time, same id and all, up to ten seconds later and often in between
    others of their key: what a relay that crashed before its delete does, and an operator's replay."""

    def __init__(self, wire: Wire, dice: random.Random, tell: Tell, share: float) -> None:
        super().__init__(wire, dice, tell)
        self._share = share
        self._waiting: list[tuple[float, Raw]] = []

    async def act(self) -> None:
        async with self.wire.speak() as voice, self.wire.listen(TOPICS, self.positions) as ear:
            while True:
                for record in await ear.read(0.2):
                    if self.dice.random() < self._share:
                        self._waiting.append((time.monotonic() + self.dice.uniform(0, 10), record))
                now = time.monotonic()
                for entry in [w for w in self._waiting if w[0] <= now]:
                    record = entry[1]
                    await voice.again(record)
                    self._waiting.remove(entry)
                    self.tell("duplicates", topic=record.topic, id=record.headers.get("id"))


class LateReplies(_Intruder):
    """Answers a command once more, under a new message id: no record of handled ids recognises that."""

    async def act(self) -> None:
        topics = [topic for topic in TOPICS if topic.endswith(".replies")]
        async with self.wire.speak() as voice, self.wire.listen(topics, self.positions) as ear:
            while True:
                for record in await ear.read(0.1):
                    # Its own inventions are not repeated: each would bring the next one.
                    if record.headers.get("forged") or self.dice.random() > 0.3:
                        continue
                    forged = str(uuid.uuid4())
                    self.tell("late-replies", id=forged, topic=record.topic)
                    await voice.again(record, id=forged, forged="1")


class Poison(_Intruder):
    """Sends what cannot be decoded, now and then, to a channel that is read."""

    async def act(self) -> None:
        async with self.wire.speak() as voice:
            while True:
                await asyncio.sleep(self.dice.uniform(0.5, 2.0))
                subscription = self.dice.choice([s for s in SUBSCRIPTIONS if s["deduplicates"]])
                topic = self.dice.choice(subscription["topics"])
                forged = str(uuid.uuid4())
                headers = {"id": forged, "type": "ftgo.nobody.Knows", "messagekind": "event"}
                self.tell("poison", id=forged, topic=topic)
                await voice.put(topic, forged, headers, b"{broken")


class RebalanceStorm(_Intruder):
    """A foreign member joins the services' groups, takes its share of the partitions, and leaves; again and again for
    some seconds, with pauses. It commits nothing."""

    session = 60.0

    def __init__(self, wire: KafkaWire, dice: random.Random, tell: Tell) -> None:
        super().__init__(wire, dice, tell)
        self._bootstrap = wire.bootstrap

    async def act(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(8, 20))
            subscription = self.dice.choice(SUBSCRIPTIONS)
            self.tell("rebalance", group=subscription["consumer"])
            for _ in range(self.dice.randint(1, 3)):
                stranger = AIOKafkaConsumer(
                    *subscription["topics"],
                    bootstrap_servers=self._bootstrap,
                    group_id=subscription["consumer"],
                    enable_auto_commit=False,
                )
                try:
                    # Inside: a member whose start was broken off would go on beating its heart, and keep partitions.
                    await stranger.start()
                    await stranger.getmany(timeout_ms=int(self.dice.uniform(300, 1500)), max_records=1)
                finally:
                    await stop(stranger)
            self.tell("rebalance", "heal", group=subscription["consumer"])


class LeaseStorm(_Intruder):
    """The same where leases divide the lanes: a foreign member stands in the consumer's table for some seconds, so that
    those who read give half of the lanes away, and take them again. Half of the times it is gone without a word."""

    session = 60.0

    def __init__(self, wire: Wire, dice: random.Random, tell: Tell, dsns: dict[str, str]) -> None:
        super().__init__(wire, dice, tell)
        self._dsns = dsns

    async def act(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(8, 20))
            subscription = self.dice.choice(SUBSCRIPTIONS)
            self.tell("rebalance", group=subscription["consumer"])
            for _ in range(self.dice.randint(1, 3)):
                await self._join_and_leave(subscription["service"], subscription["consumer"], subscription["topics"])
            self.tell("rebalance", "heal", group=subscription["consumer"])

    async def _join_and_leave(self, service: str, consumer: str, topics: list[str]) -> None:
        lanes = [f"{topic}/{lane}" for topic in topics for lane in range(LANES)]
        name, seconds = str(uuid.uuid4()), self.dice.uniform(0.5, 3)
        connection = await asyncpg.connect(self._dsns[service], timeout=5, command_timeout=5)
        try:
            await connection.execute(
                "INSERT INTO lane_member (consumer, member, wants, expires_at) "
                "VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
                *(consumer, name, lanes, seconds),
            )
            await asyncio.sleep(seconds)
            if self.dice.random() < 0.5:
                await connection.execute("DELETE FROM lane_member WHERE member = $1", name)
        finally:
            connection.terminate()
