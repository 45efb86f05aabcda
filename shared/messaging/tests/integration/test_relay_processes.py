"""Relays as processes of their own, paused, killed and divided anew: completeness and the order of each key hold."""

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.connection import begin, connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.outbox import outbox_database
from ftgo_messaging.transaction import rows as rows_
from ftgo_messaging.transports.kafka.binding import from_kafka
from ftgo_messaging.transports.kafka.topics import ensure_topics
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

pytestmark = pytest.mark.slow

PARTITIONS = 4
LEASE_SECONDS = 2.0
KEYS = [f"key-{i}" for i in range(12)]


@dataclass
class Process:
    """A relay, and the name under which it holds leases."""

    owner: str
    process: asyncio.subprocess.Process
    readers: list[asyncio.Task[bytes]]
    """Of its output, so that no full pipe stops it."""

    def send_signal(self, sign: signal.Signals) -> None:
        self.process.send_signal(sign)


class World:
    def __init__(self, kind: str, dsn: str, engine: AsyncEngine, bootstrap: str, topic: str) -> None:
        self.kind = kind
        self.dsn = dsn
        self.engine = engine
        self.bootstrap = bootstrap
        self.topic = topic
        self.sent: dict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def relay(self, index: int = 0, of: int = 1, failpoint: str = "") -> AsyncIterator[Process]:
        """A relay in a process. Killed at the end, if it is not gone by then."""
        program = Path(__file__).with_name("relay_process.py")
        arguments = [self.kind, self.dsn, self.bootstrap, str(LEASE_SECONDS), str(index), str(of)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            *arguments,
            env={**os.environ, "FTGO_FAILPOINT": failpoint},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            owner = (await process.stdout.readline()).decode().strip()
            readers = [asyncio.create_task(s.read()) for s in (process.stdout, process.stderr) if s is not None]
            yield Process(owner, process, readers)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def send(self, keys: list[str], each: int) -> None:
        """``each`` messages of each key, a transaction for every message."""
        for _ in range(each):
            for key in keys:
                n = self.sent[key]
                self.sent[key] += 1
                message_id = new_id()
                headers = {m.ID: message_id, m.TYPE: "t", m.SEQUENCE: str(n)}
                async with begin(self.engine) as connection:
                    message = Message(message_id, self.topic, key, headers, b"{}")
                    await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of([message]))])

    async def execute(self, sql: str) -> list[Any]:
        async with connect(self.engine) as connection:
            return await connection.execute(text(sql))

    async def left(self) -> int:
        return int((await self.execute("SELECT count(*) FROM outbox"))[0][0])

    async def empty(self) -> None:
        async def check() -> None:
            assert await self.left() == 0

        await eventually(check, within=60)

    async def owners(self) -> dict[str, int]:
        """How many shards each owner holds."""
        held = await self.execute("SELECT owner, count(*) FROM relay_lease WHERE expires_at > now() GROUP BY owner")
        return {row[0]: row[1] for row in held}

    async def records(self) -> list[tuple[str, int]]:
        """Key and number of all records, in the order of each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            partitions = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            found = []
            while any([await consumer.position(p) < ends[p] for p in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(r.key.decode(), int(dict(from_kafka(r.headers))[m.SEQUENCE])) for r in records]
            return found
        finally:
            await consumer.stop()

    async def complete(self) -> int:
        """All messages are there, and a consumer that drops repeated ids applies those of each key in order. Returns
        how many records are repetitions."""
        applied: dict[str, list[int]] = defaultdict(list)
        records = await self.records()
        for key, n in records:
            if n not in applied[key]:
                applied[key].append(n)
        assert dict(applied) == {key: list(range(count)) for key, count in self.sent.items()}
        return len(records) - sum(self.sent.values())


@pytest.fixture(params=["polling", "log-tailing"])
async def world(request: pytest.FixtureRequest, postgres: Postgres, kafka: Kafka) -> AsyncIterator[World]:
    dsn = (await postgres.create_service_databases(["processes"]))["processes"]
    async with outbox_database(dsn) as engine:
        topic = f"processes.{new_id()}"
        await ensure_topics(kafka.bootstrap, [topic], PARTITIONS)
        world = World(request.param, dsn, engine, kafka.bootstrap, topic)
        yield world


async def other_owner(world: World, before: dict[str, int]) -> None:
    now = await world.owners()
    assert now
    assert not set(now) & set(before)


async def test_a_relay_that_was_paused_for_longer_than_its_lease_breaks_no_order(world: World) -> None:
    """Stopped by a signal under load, wherever it is at that moment, and woken up when the other one has taken over;
    then the other way round."""
    async with world.relay() as one, world.relay() as two:
        await world.send(KEYS, 2)
        await world.empty()
        for _ in range(3):
            owners = await world.owners()
            (owner,) = [relay for relay in (one, two) if relay.owner in owners]
            sending = asyncio.create_task(world.send(KEYS, 12))
            await world.send(["beside"], 5)
            owner.send_signal(signal.SIGSTOP)
            await eventually(lambda owners=owners: other_owner(world, owners), within=30)
            owner.send_signal(signal.SIGCONT)
            await sending
            await world.empty()
    await world.complete()


async def taken_over_and_back(world: World, failpoint: str) -> int:
    """One relay is paused at the failpoint for longer than its lease, another takes over and is killed, and the first
    has to go on: so it has woken up by then. Returns how many records are repetitions."""
    async with world.relay(failpoint=f"{failpoint}=pause:{LEASE_SECONDS * 2.5}@3"):
        for _ in range(2):  # two rounds go well
            await world.send(KEYS[:1], 1)
            await world.empty()
        before = await world.owners()
        async with world.relay():
            await world.send(KEYS, 3)
            await eventually(lambda: other_owner(world, before), within=30)
            await world.send(KEYS, 3)
            await world.empty()
        await world.send(KEYS, 1)
        await world.empty()
    return await world.complete()


async def test_a_relay_that_is_paused_between_finding_and_sending_sends_nothing(world: World) -> None:
    """Awake again, it looks at its lease first: not one record twice."""
    assert await taken_over_and_back(world, "relay.selected") == 0


async def test_a_relay_that_is_paused_between_sending_and_deleting_repeats_and_loses_nothing(world: World) -> None:
    assert await taken_over_and_back(world, "relay.published") > 0


async def test_a_killed_relay_is_followed_by_its_standby(world: World) -> None:
    async with world.relay() as one:
        await world.send(KEYS, 2)
        await world.empty()
        async with world.relay():
            sending = asyncio.create_task(world.send(KEYS, 20))
            await world.send(["beside"], 5)
            one.send_signal(signal.SIGKILL)
            await sending
            await world.empty()
    await world.complete()


async def test_one_two_and_four_relays_at_once_never_share_a_key(world: World) -> None:
    """A rollout in which old and new processes run side by side, each with another division of the shards."""

    async def all_held(owners: int) -> None:
        held = await world.owners()
        assert (len(held), sum(held.values())) == (owners, 64)

    async with world.relay(0, 1) as one:
        await eventually(lambda: all_held(1), within=30)
        async with world.relay(0, 2) as zero, world.relay(1, 2):
            sending = asyncio.create_task(world.send(KEYS, 30))
            await world.send(["beside"], 5)
            one.send_signal(signal.SIGSTOP)  # not gone: paused, and back later
            await eventually(lambda: all_held(2), within=30)
            async with world.relay(0, 4), world.relay(1, 4), world.relay(2, 4), world.relay(3, 4):
                one.send_signal(signal.SIGCONT)
                zero.send_signal(signal.SIGKILL)
                await sending
                await world.send(KEYS, 5)
                await world.empty()
    await world.complete()
