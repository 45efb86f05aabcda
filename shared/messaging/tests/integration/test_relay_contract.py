"""What every relay promises, proven on both of them: polling publisher and transaction log tailing, with a real Kafka
and a real PostgreSQL. Nothing here knows how a relay finds its rows."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.connection import Connection, begin, connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.outbox import outbox_database
from ftgo_messaging.transaction import rows as rows_
from ftgo_messaging.transports.kafka.binding import from_kafka
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.transports.port import Publisher, Sent
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

PARTITIONS = 4
AnyRelay = PollingPublisher | LogTailing


class World:
    """An outbox, a topic, and relays of one kind in between."""

    def __init__(self, kind: str, engine: AsyncEngine, bootstrap: str, topic: str) -> None:
        self.kind = kind
        self.engine = engine
        self.bootstrap = bootstrap
        self.topic = topic
        self.publishers: list[KafkaPublisher] = []

    def publisher(self) -> KafkaPublisher:
        self.publishers.append(KafkaPublisher(self.bootstrap, "contract", request_timeout=5))
        return self.publishers[-1]

    def relay(self, publisher: Publisher | None = None, **options: Any) -> AnyRelay:
        publisher = publisher or self.publisher()
        if self.kind == "polling":
            return PollingPublisher(self.engine, publisher, WakeUp(), **{"interval": 0.1, **options})
        return LogTailing(self.engine, publisher, WakeUp(), service="contract", **options)

    @asynccontextmanager
    async def running(self, relay: AnyRelay | None = None) -> AsyncIterator[AnyRelay]:
        relay = relay or self.relay()
        task = asyncio.create_task(relay.run())
        try:
            await eventually(lambda: tails(relay))
            yield relay
        finally:
            relay.stop()
            await asyncio.wait([task], timeout=5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def message(self, key: str, n: int, *, topic: str | None = None, body: bytes = b"{}") -> Message:
        message_id = new_id()
        headers = {m.ID: message_id, m.TYPE: "contract.Tick", m.SEQUENCE: str(n)}
        return Message(message_id, topic or self.topic, key, headers, body)

    async def write(self, connection: Connection, *messages: Message) -> None:
        await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of(messages))])

    async def commit(self, *messages: Message) -> None:
        async with begin(self.engine) as connection:
            await self.write(connection, *messages)

    async def execute(self, sql: str) -> list[Any]:
        async with connect(self.engine) as connection:
            return await connection.execute(text(sql))

    async def left(self) -> int:
        return int((await self.execute("SELECT count(*) FROM outbox"))[0][0])

    async def empty(self) -> None:
        async def check() -> None:
            try:
                left = await self.left()
            except Exception as error:
                raise AssertionError from error
            assert left == 0

        await eventually(check, within=60)

    async def lease_ends(self) -> None:
        """As if the owner had been silent for longer than its lease."""
        await self.execute("UPDATE relay_lease SET expires_at = now() - interval '1 second'")

    async def on_topic(self, topic: str | None = None) -> list[tuple[str, int, str]]:
        """Key, number and id of all records, in the order of each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic or self.topic, p) for p in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            found = []
            while any([await consumer.position(p) < ends[p] for p in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for r in records:
                        headers = dict(from_kafka(r.headers))
                        found.append((r.key.decode(), int(headers[m.SEQUENCE]), headers[m.ID].decode()))
            return found
        finally:
            await consumer.stop()

    async def complete(self, expected: Mapping[str, int], *, repeats: bool = True) -> None:
        """Each key has the numbers 0, 1, 2 ... up to its count, first occurrences in this order, and one id each."""
        by_key: dict[str, list[int]] = defaultdict(list)
        ids: dict[tuple[str, int], set[str]] = defaultdict(set)
        records = await self.on_topic()
        for key, n, message_id in records:
            ids[key, n].add(message_id)
            if n not in by_key[key]:
                by_key[key].append(n)
        assert dict(by_key) == {key: list(range(count)) for key, count in expected.items()}
        assert all(len(x) == 1 for x in ids.values())
        if not repeats:
            assert len(records) == sum(expected.values())


@pytest.fixture(params=["polling", "log-tailing"])
async def world(request: pytest.FixtureRequest, postgres: Postgres, kafka: Kafka) -> AsyncIterator[World]:
    dsn = (await postgres.create_service_databases(["contract"]))["contract"]
    async with outbox_database(dsn, pool_size=40) as engine:
        topic = f"contract.{new_id()}"
        await ensure_topics(kafka.bootstrap, [topic], PARTITIONS)
        world = World(request.param, engine, kafka.bootstrap, topic)
        yield world
        for publisher in world.publishers:
            await publisher.close()


async def tails(relay: AnyRelay) -> None:
    """A relay that tails the log reads from it by now, and has left its first sweep behind."""
    assert not isinstance(relay, LogTailing) or not relay.sweeping


async def ready(relay: AnyRelay) -> AnyRelay:
    """The same, for a relay that nobody runs."""

    async def once() -> None:
        await relay.run_once()
        await tails(relay)

    await eventually(once)
    return relay


async def everything(relay: AnyRelay) -> int:
    published = 0
    while count := await relay.run_once():
        published += count
    return published


async def test_a_lower_position_that_commits_later_is_published_too(world: World) -> None:
    """The gap: A takes its position first and commits last. A cursor over positions would lose A."""
    relay = await ready(world.relay())
    async with connect(world.engine) as slow:
        transaction = slow.driver.transaction()
        await transaction.start()
        await world.write(slow, world.message("a", 0))
        await world.commit(world.message("b", 0))
        assert await everything(relay) == 1
        await transaction.commit()
    assert await everything(relay) == 1
    assert await world.left() == 0
    await world.complete({"a": 1, "b": 1}, repeats=False)
    await relay.release()


async def test_many_writers_keep_the_order_of_each_key(world: World) -> None:
    """Interleaved commits, several rows per transaction; the lock of each key's row gives the order."""
    keys = [f"k{i}" for i in range(6)]
    await world.execute("DROP TABLE IF EXISTS counters")
    await world.execute("CREATE TABLE counters (key text PRIMARY KEY, n integer)")
    await world.execute("INSERT INTO counters SELECT 'k' || i, 0 FROM generate_series(0, 5) i")
    lock = text("UPDATE counters SET n = n + 2 WHERE key = :key RETURNING n - 2")

    async def writer(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            async with begin(world.engine) as connection:
                messages = []
                for key in sorted(chance.sample(keys, 2)):
                    n = (await connection.execute(lock, {"key": key}))[0][0]
                    messages += [world.message(key, n), world.message(key, n + 1)]
                await world.write(connection, *messages)
                await asyncio.sleep(chance.random() * 0.01)  # commits in another order than begun

    async with world.running(world.relay(batch=17)):
        await asyncio.gather(*(writer(seed) for seed in range(16)))
        await world.empty()
    counts = {row[0]: row[1] for row in await world.execute("SELECT key, n FROM counters")}
    assert sum(counts.values()) == 16 * 12 * 4
    await world.complete(counts, repeats=False)


async def test_a_message_that_is_too_large_stops_its_key_alone(world: World) -> None:
    async with world.running():
        await world.commit(
            world.message("bad", 0),
            world.message("bad", 1, body=b"x" * 1_100_000),
            *[world.message("bad", n) for n in range(2, 700)],  # more than a batch behind it
            world.message("good", 0),
        )
        for n in range(1, 4):
            await world.commit(world.message("bad", 699 + n), world.message("good", n))

        async def others_flow() -> None:
            assert [n for key, n, _ in await world.on_topic() if key == "good"] == [0, 1, 2, 3]

        await eventually(others_flow, within=30)
        assert {n for key, n, _ in await world.on_topic() if key == "bad"} == {0}
        await world.execute("DELETE FROM outbox WHERE length(body) > 1000000")  # an operator gives it up
        await world.empty()
    assert [n for key, n, _ in await world.on_topic() if key == "bad"] == [0, *range(2, 703)]


async def test_a_broker_that_refuses_a_batch_stops_one_key_of_it(world: World) -> None:
    """The topic's own limit is lower than ours: the broker refuses the whole batch, and its producer is out of
    sequence from then on."""
    publisher = KafkaPublisher(world.bootstrap, "contract", max_message_bytes=5_000_000)
    world.publishers.append(publisher)
    keys = [f"k{i}" for i in range(20)]
    async with world.running(world.relay(publisher)):
        await world.commit(
            *[world.message(key, 0) for key in keys],
            world.message("bad", 0, body=b"x" * 1_500_000),
            *[world.message(key, 1) for key in keys],
        )

        async def others_flow() -> None:
            assert await world.left() == 1

        await eventually(others_flow, within=60)
        await world.execute("DELETE FROM outbox")
        await world.commit(world.message("bad", 0))
        await world.empty()
    await world.complete(dict.fromkeys(keys, 2) | {"bad": 1})


async def test_a_missing_topic_stops_its_channel_until_it_is_made(world: World, kafka: Kafka) -> None:
    missing = f"contract.{new_id()}"
    async with world.running():
        await world.commit(*[world.message(f"m{n}", 0, topic=missing) for n in range(600)], world.message("good", 0))

        async def others_flow() -> None:
            assert len(await world.on_topic()) == 1
            assert await world.left() == 600

        await eventually(others_flow, within=30)
        await ensure_topics(kafka.bootstrap, [missing], PARTITIONS)
        await world.empty()
    assert len(await world.on_topic(missing)) == 600


class Crashing:
    """Publishes, and dies before anybody hears of it."""

    def __init__(self, publisher: KafkaPublisher) -> None:
        self._publisher = publisher

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        await self._publisher.publish(messages)
        raise SystemError("died")


async def test_a_crash_between_publish_and_delete_repeats_and_loses_nothing(world: World) -> None:
    relay = await ready(world.relay(Crashing(world.publisher())))
    await world.commit(*[world.message(f"k{n % 3}", n // 3) for n in range(30)])
    with pytest.raises(SystemError):
        await relay.run_once()
    assert await world.left() == 30
    await world.lease_ends()
    successor = world.relay()
    assert await everything(successor) == 30
    await successor.release()
    await world.complete({f"k{i}": 10 for i in range(3)})
    assert len(await world.on_topic()) == 60


async def test_only_the_delete_itself_waits_for_no_disk(world: World) -> None:
    """A pooled connection that kept the setting would cost business transactions their durability."""
    for statement in (
        "CREATE TABLE IF NOT EXISTS seen (value text)",
        "TRUNCATE seen",
        "CREATE OR REPLACE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'",
        "CREATE TRIGGER see AFTER DELETE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION see()",
    ):
        await world.execute(statement)
    relay = await ready(world.relay())
    await world.commit(world.message("a", 0))
    assert await everything(relay) == 1
    await relay.release()
    assert {row[0] for row in await world.execute("SELECT value FROM seen")} == {"off"}
    connections = [await world.engine.connect() for _ in range(world.engine.pool.checkedin())]
    try:
        kept = [(await c.execute(text("SHOW synchronous_commit"))).scalar_one() for c in connections]
    finally:
        for connection in connections:
            await connection.close()
    assert kept
    assert set(kept) == {"on"}


async def test_a_restarted_relay_goes_on_where_it_was(world: World) -> None:
    for n in range(4):
        await world.commit(world.message("a", 2 * n))
        async with world.running():
            await world.empty()
            await world.commit(world.message("a", 2 * n + 1))
            await world.empty()
    await world.complete({"a": 8}, repeats=False)


async def traffic(world: World, keys: int, each: int, pause: float) -> None:
    """Each key's messages in order, one transaction at a time, tried again until it is known to be committed."""

    async def key(name: str) -> None:
        for n in range(each):
            message = world.message(name, n)
            while True:
                try:
                    known = await world.execute(f"SELECT 1 FROM sent WHERE id = '{message.id}'")
                    if not known:
                        async with begin(world.engine) as connection:
                            await connection.execute(
                                text("INSERT INTO sent VALUES (CAST(:id AS text))"), {"id": message.id}
                            )
                            await world.write(connection, message)
                    break
                except Exception:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(pause)

    await world.execute("CREATE TABLE IF NOT EXISTS sent (id text PRIMARY KEY)")
    await asyncio.gather(*(key(f"k{i}") for i in range(keys)))


@pytest.mark.slow
async def test_an_outage_of_kafka_delays_and_loses_nothing(world: World, kafka: Kafka) -> None:
    async with world.running(world.relay(lease_seconds=2)) as relay:
        await world.commit(world.message("before", 0))
        await world.empty()
        sending = asyncio.create_task(traffic(world, 4, 20, 0.05))
        kafka.kill()
        await sending
        await eventually(lambda: holds_lease(world, relay), within=10)  # it goes on while Kafka is away
        await kafka.start()
        await world.empty()
    await world.complete({f"k{i}": 20 for i in range(4)} | {"before": 1})


async def holds_lease(world: World, relay: AnyRelay) -> None:
    owner = await world.execute("SELECT DISTINCT owner FROM relay_lease WHERE expires_at > now()")
    assert [r[0] for r in owner] == [relay.lease.owner]


async def test_killed_sessions_of_the_database_delay_and_lose_nothing(world: World, postgres: Postgres) -> None:
    admin = await asyncpg.connect(postgres.dsn())
    async with world.running(world.relay(lease_seconds=2)):
        sending = asyncio.create_task(traffic(world, 4, 30, 0.02))
        for _ in range(6):
            await asyncio.sleep(0.15)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ftgo_contract'"
            )
        await sending
        await world.empty()
    await admin.close()
    await world.complete({f"k{i}": 30 for i in range(4)})


@pytest.mark.slow
async def test_an_immediate_stop_of_the_database_delays_and_loses_nothing(world: World, postgres: Postgres) -> None:
    async with world.running(world.relay(lease_seconds=2)):
        sending = asyncio.create_task(traffic(world, 4, 20, 0.02))
        for _ in range(2):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(postgres.stop, immediate=True)
            await postgres.start()
        await sending
        await world.empty()
    await world.complete({f"k{i}": 20 for i in range(4)})


@pytest.mark.slow
async def test_a_transaction_of_a_hundred_thousand_messages_keeps_memory_flat(world: World) -> None:
    relay = await ready(world.relay())
    await world.commit(world.message("warm", 0))
    await everything(relay)
    before = psutil.Process().memory_info().rss
    await world.execute(
        "INSERT INTO outbox (message_id, channel, key, shard, headers, body) "
        f"SELECT gen_random_uuid(), '{world.topic}', 'k' || i % 100, i % 100 % 64, "
        "json_build_object('id', i::text, 'sequence', (i / 100)::text, 'padding', repeat('h', 300)), "
        "convert_to(repeat('b', 600), 'UTF8') FROM generate_series(0, 99999) i"
    )
    most = 0
    published = 0
    while count := await relay.run_once():
        published += count
        most = max(most, psutil.Process().memory_info().rss - before)
    assert published == 100_000
    assert await world.left() == 0
    assert most < 60_000_000, "the rows alone take a hundred megabytes"
    await relay.release()
    await world.complete({f"k{i}": 1000 for i in range(100)} | {"warm": 1}, repeats=False)
