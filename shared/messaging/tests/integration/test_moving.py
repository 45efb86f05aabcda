"""A relay that goes from one broker to another, of both kinds: from a real Kafka to a real Valkey."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ftgo_local.brokers.valkey import Valkey
from ftgo_local.kafka import Kafka
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.moving import Moving, Route
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.connection import begin, connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.outbox import outbox_database
from ftgo_messaging.transaction import rows as rows_
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.lanes import LANES, lane_of
from ftgo_messaging.transports.port import Batch, Subscription, Transport
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

A, B = "key-0", "key-1"
AnyRelay = PollingPublisher | LogTailing
Number = tuple[str, int]


class Reader:
    """Of one broker, with one batch in hand at most."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.read: list[Number] = []
        self._in_hand: Batch | None = None

    async def take(self, most: int = 500, wait: float = 20.0) -> list[Number]:
        """The next batch, which is not settled."""
        batch = None
        async with asyncio.timeout(wait):
            while batch is None:
                batch = await self.subscription.take(most, 0.5)
        self._in_hand = batch
        found = [((r.key or b"").decode(), int(dict(r.headers)[m.SEQUENCE] or b"")) for r in batch.records]
        self.read += found
        return found

    def settle(self) -> None:
        assert self._in_hand is not None
        self.subscription.settle(self._in_hand)

    async def take_all(self, count: int) -> list[Number]:
        """So many, and settle them."""
        found: list[Number] = []
        while len(found) < count:
            found += await self.take()
            self.settle()
        return found


class World:
    """An outbox, a channel on two brokers with a reader each, and relays."""

    def __init__(self, kind: str, engine: AsyncEngine, old: Transport, new: Transport) -> None:
        self.kind = kind
        self.engine = engine
        self.old, self.new = old, new
        self.channel = Channel(f"moving.{new_id()}", Kind.EVENT)
        self.readers = {self.channel.name: ["reader"]}
        self.from_old: Reader
        self.from_new: Reader

    async def open(self) -> None:
        found = []
        for transport in (self.old, self.new):
            await transport.declare([self.channel], self.readers)
            subscription = transport.subscription("reader", [self.channel])
            await subscription.open()
            await subscription.assign([f"{self.channel.name}/{n}" for n in range(transport.lanes)])
            found.append(Reader(subscription))
        self.from_old, self.from_new = found

    async def close(self) -> None:
        await self.from_old.subscription.close()
        await self.from_new.subscription.close()

    def route(self, generation: int, *before: Transport) -> Route:
        """To the new broker, or without ``before`` to the old one."""
        transport = self.new if before else self.old
        return Route(transport.publisher(f"relay {generation}"), generation, before)

    def relay(self, route: Route, **options: Any) -> "Running":
        moving, wake_up = Moving(route, self.readers), WakeUp()
        options = {"interval": 0.1, "lease_seconds": 4.0, **options}
        if self.kind == "polling":
            return Running(moving, PollingPublisher(self.engine, moving, wake_up, moving=moving, **options))
        return Running(moving, LogTailing(self.engine, moving, wake_up, moving=moving, service="moving", **options))

    async def commit(self, *messages: Number) -> None:
        made = []
        for key, n in messages:
            message_id = new_id()
            headers = {m.ID: message_id, m.TYPE: "moving.Tick", m.SEQUENCE: str(n)}
            made.append(Message(message_id, self.channel.name, key, headers, b"{}"))
        async with begin(self.engine) as connection:
            await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of(made))])

    async def execute(self, sql: str) -> list[Any]:
        async with connect(self.engine) as connection:
            return await connection.execute(text(sql))

    async def left(self, expected: Sequence[Number]) -> None:
        """So much is in the outbox in the end."""

        async def check() -> None:
            rows = await self.execute("SELECT key, CAST(headers AS jsonb) ->> 'sequence' FROM outbox ORDER BY position")
            assert [(row[0], int(row[1])) for row in rows] == list(expected)

        await eventually(check, within=30)


class Running:
    def __init__(self, moving: Moving, relay: AnyRelay) -> None:
        self.moving, self.relay = moving, relay
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> "Running":
        self._tasks = [asyncio.create_task(self.moving.run()), asyncio.create_task(self.relay.run())]
        return self

    async def stop(self) -> None:
        self.relay.stop()
        await asyncio.wait(self._tasks[1:], timeout=5)
        await self.die()

    async def die(self) -> None:
        """Cut off: its lease ends with its time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.moving.close()

    async def unmoved(self, count: int | None) -> None:
        async def check() -> None:
            assert self.moving.unmoved == count

        await eventually(check, within=30)

    async def __aenter__(self) -> "Running":
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-move-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
async def valkey(folder: Path) -> AsyncIterator[Valkey]:
    server = Valkey(folder / "valkey", free_port())
    await server.start()
    yield server
    server.stop()


@asynccontextmanager
async def opened(kind: str, postgres: Postgres, kafka: Kafka, valkey: Valkey) -> AsyncIterator[World]:
    dsn = (await postgres.create_service_databases(["moving"]))["moving"]
    async with outbox_database(dsn, pool_size=40) as engine:
        world = World(kind, engine, transport_at(f"kafka://{kafka.bootstrap}"), transport_at(valkey.url))
        await world.open()
        yield world
        await world.close()


@pytest.fixture(params=["polling", "log-tailing"])
async def world(
    request: pytest.FixtureRequest, postgres: Postgres, kafka: Kafka, valkey: Valkey
) -> AsyncIterator[World]:
    async with opened(request.param, postgres, kafka, valkey) as world:
        yield world


async def one_in_hand(world: World) -> tuple[str, str]:
    """0 of either key is on the old broker, one of them read to its end, the other one in hand. Which is which."""
    assert lane_of(A) != lane_of(B)
    await world.commit((A, 0), (B, 0))
    [(done, _)] = await world.from_old.take(1)
    world.from_old.settle()
    [(in_hand, _)] = await world.from_old.take(1)
    assert {done, in_hand} == {A, B}
    return done, in_hand


async def test_a_lane_waits_until_it_is_read_to_its_end_and_others_do_not(world: World) -> None:
    async with world.relay(world.route(1)) as running:
        done, in_hand = await one_in_hand(world)
        assert running.moving.unmoved == 0
        running.moving.go(world.route(2, world.old))
        assert running.moving.unmoved == LANES
        await running.unmoved(1)
        await world.commit((in_hand, 1), (done, 1), (in_hand, 2))
        assert await world.from_new.take_all(1) == [(done, 1)]
        await world.left([(in_hand, 1), (in_hand, 2)])
        assert running.moving.unmoved == 1
        world.from_old.settle()
        assert await world.from_new.take_all(2) == [(in_hand, 1), (in_hand, 2)]
        await running.unmoved(0)
        await world.left([])
    assert world.from_old.read == [(done, 0), (in_hand, 0)]


async def test_more_than_a_batch_of_waiting_rows_hides_nobody(world: World) -> None:
    async with world.relay(world.route(1), batch=10) as running:
        done, in_hand = await one_in_hand(world)
        running.moving.go(world.route(2, world.old))
        await running.unmoved(1)
        lane = lane_of(in_hand)
        others = [key for n in range(2000) if lane_of(key := f"many-{n}") == lane][:100]
        waiting = [(key, 1) for key in [in_hand, *others]]
        await world.commit(*waiting)
        await world.commit((done, 1))
        assert await world.from_new.take_all(1) == [(done, 1)]
        await world.left(waiting)
        world.from_old.settle()
        assert sorted(await world.from_new.take_all(101)) == sorted(waiting)


async def test_who_begins_in_the_middle_waits_as_well(world: World) -> None:
    async with world.relay(world.route(1)):
        done, in_hand = await one_in_hand(world)
    await world.commit((done, 1), (in_hand, 1))
    async with world.relay(world.route(2, world.old)) as running:
        assert await world.from_new.take_all(1) == [(done, 1)]
        await running.unmoved(1)
        await world.left([(in_hand, 1)])
    async with world.relay(world.route(2, world.old)):
        await world.left([(in_hand, 1)])
        world.from_old.settle()
        assert await world.from_new.take_all(1) == [(in_hand, 1)]


async def test_what_is_let_go_while_the_table_is_asked_is_found(world: World) -> None:
    """The answer was without its rows: it does not show that the table has no more. (Ten seconds later and more, the
    table would be compared with the log.)"""
    running = world.relay(world.route(1))
    relay = running.relay
    sweeper = relay if isinstance(relay, PollingPublisher) else relay._sweeper
    stopped, find, rounds = sweeper.delivery.stopped, sweeper._find, itertools.count(1)
    stopped.hold([(world.channel.name, A)])

    async def let_go_meanwhile(connection: Any) -> Any:
        found = await find(connection)
        if (relay is sweeper or relay._stream is not None) and next(rounds) == 3:
            stopped.let_go()
        return found

    sweeper._find = let_go_meanwhile  # type: ignore[method-assign]
    await world.commit((A, 0))
    async with running:
        assert await world.from_old.take(wait=8.0) == [(A, 0)]
        world.from_old.settle()


async def test_shards_of_a_relay_that_has_not_moved_are_waited_for_anew(world: World) -> None:
    """It may have published on the old broker until its lease was over."""
    keys = {writer.shard_of(key) % 2: key for key in (f"shard-{n}" for n in range(20))}
    other = world.relay(world.route(1), index=1, of=2).start()
    await world.commit((keys[1], 0))
    assert await world.from_old.take_all(1) == [(keys[1], 0)]  # so it has its shards
    # As a relay for all shards, of which the other one has half.
    mine = world.relay(world.route(2, world.old)).start()
    await mine.unmoved(0)
    await world.commit((keys[0], 1))
    assert await world.from_new.take_all(1) == [(keys[0], 1)]
    await world.commit((keys[1], 1))
    assert await world.from_old.take() == [(keys[1], 1)]
    await world.left([])
    assert mine.moving.unmoved == 0
    await other.die()
    await mine.unmoved(1)
    await world.commit((keys[1], 2), (keys[0], 2))
    assert await world.from_new.take_all(1) == [(keys[0], 2)]
    await world.left([(keys[1], 2)])
    world.from_old.settle()
    assert await world.from_new.take_all(1) == [(keys[1], 2)]
    await mine.stop()


async def test_who_has_not_heard_of_the_move_publishes_nothing_after_it(world: World) -> None:
    moved = world.relay(world.route(2, world.old)).start()
    await moved.unmoved(0)
    deaf = world.relay(world.route(1)).start()
    await deaf.unmoved(None)
    await moved.stop()
    await world.commit((A, 0))
    await asyncio.sleep(1.5)  # it asks for the free lease every second
    await world.left([(A, 0)])
    assert deaf.moving.unmoved is None
    deaf.moving.go(world.route(2, world.old))
    assert await world.from_new.take_all(1) == [(A, 0)]
    await deaf.stop()
    assert world.from_old.read == []


async def test_back_again_before_all_is_moved(world: World) -> None:
    """What went to the new broker is read to its end before the old one goes on with the same lane."""
    async with world.relay(world.route(1)) as running:
        done, in_hand = await one_in_hand(world)
        running.moving.go(world.route(2, world.old))
        await world.commit((done, 1), (in_hand, 1))
        assert await world.from_new.take() == [(done, 1)]
        running.moving.go(Route(world.old.publisher("back"), 3, [world.new]))
        await running.unmoved(1)
        world.from_old.settle()
        await world.commit((done, 2))
        assert await world.from_old.take_all(1) == [(in_hand, 1)]
        await world.left([(done, 2)])
        world.from_new.settle()
        assert await world.from_old.take_all(1) == [(done, 2)]
        await running.unmoved(0)
