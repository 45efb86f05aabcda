"""What only the tailing relay has: a slot that can be lost, dropped, moved, or keep the server's log for ever."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from ftgo_local.ports import free_port
from ftgo_local.postgres import SETTINGS, Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox import polling, writer
from ftgo_messaging.outbox.log_stream import StreamBroken
from ftgo_messaging.outbox.log_tailing import LOOK_SECONDS, LogTailing
from ftgo_messaging.outbox.pgoutput import lsn_of
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.connection import begin, connect
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.outbox import outbox_database
from ftgo_messaging.transaction import rows as rows_
from ftgo_messaging.transports.port import Sent
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

SLOT = "tailing_relay_0_of_1"


class Recorder:
    """A broker that remembers; ``gate`` closed, it is slow; ``dies_after`` that many messages, its relay fails; when it
    ``refuses``, it takes nothing."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.dies_after: int | None = None
        self.refuses = False

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        await self.gate.wait()
        if self.refuses:
            return [Sent.UNKNOWN] * len(messages)
        for message in messages:
            if self.dies_after is not None and len(self.published) >= self.dies_after:
                raise SystemError("died")
            self.published.append(message)
        return [Sent.CONFIRMED] * len(messages)

    @property
    def numbers(self) -> list[int]:
        return [int(x.headers[m.SEQUENCE]) for x in self.published]


class World:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.broker = Recorder()

    def relay(self, **options: Any) -> LogTailing:
        return LogTailing(self.engine, self.broker, WakeUp(), service="tailing", **options)

    async def commit(self, *numbers: int) -> None:
        messages = [
            Message(new_id(), "c", "k", {m.ID: new_id(), m.TYPE: "t", m.SEQUENCE: str(n)}, b"{}") for n in numbers
        ]
        async with begin(self.engine) as connection:
            await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of(messages))])

    async def execute(self, sql: str) -> list[Any]:
        async with connect(self.engine) as connection:
            return await connection.execute(text(sql))

    async def confirmed(self) -> int:
        found = await self.execute(
            f"SELECT CAST(confirmed_flush_lsn AS text) FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
        )
        return lsn_of(found[0][0]) if found and found[0][0] else 0  # null while the slot is being made

    async def end_of_log(self) -> int:
        return lsn_of(str((await self.execute("SELECT CAST(pg_current_wal_lsn() AS text)"))[0][0]))


@asynccontextmanager
async def world_on(postgres: Postgres) -> AsyncIterator[World]:
    dsn = (await postgres.create_service_databases(["tailing"]))["tailing"]
    async with outbox_database(dsn) as engine:
        yield World(engine)


@pytest.fixture
async def world(postgres: Postgres) -> AsyncIterator[World]:
    async with world_on(postgres) as world:
        yield world


async def ready(relay: LogTailing) -> LogTailing:
    """It tails the log, and has left its first sweep behind."""

    async def once() -> None:
        await relay.run_once()
        assert not relay.sweeping

    await eventually(once)
    return relay


async def everything(relay: LogTailing) -> None:
    while await relay.run_once():
        pass


def gaps(reason: str) -> float:
    return REGISTRY.get_sample_value("ftgo_relay_slot_gaps_total", {"reason": reason}) or 0.0


async def test_a_restart_is_no_gap_and_repeats_nothing(world: World) -> None:
    """Also after a quiet time, in which the position moves without messages."""
    before = [gaps(reason) for reason in ("gone", "lost", "moved", "another server")]
    for n in range(3):
        relay = await ready(world.relay())
        await world.commit(n)
        await everything(relay)
        await world.execute("SELECT pg_logical_emit_message(false, 'noise', 'x')")
        assert await relay.run_once() == 0
        await relay.release()
    assert world.broker.numbers == [0, 1, 2]
    assert [gaps(reason) for reason in ("gone", "lost", "moved", "another server")] == before


async def test_it_tails_only_when_the_table_has_been_read_to_its_end(world: World) -> None:
    """What was committed before the slot was made no stream shows, however many batches the sweep takes."""
    await world.commit(*range(200))
    relay = await ready(world.relay(batch=2))
    assert world.broker.numbers == list(range(200))
    await relay.release()


async def test_what_came_by_the_log_needs_no_sweep(world: World) -> None:
    relay = await ready(world.relay())
    await world.commit(0)
    assert await relay.run_once() == 1
    assert not relay.sweeping
    await relay.release()


async def test_a_quiet_relay_renews_its_lease(world: World) -> None:
    relay = await ready(world.relay(lease_seconds=1000))
    relay.lease._asked -= 400  # so long ago
    assert relay.lease.renew_in == 0
    await relay.run_once()
    assert relay.lease.renew_in > 300
    await relay.release()


async def test_a_dropped_slot_is_noticed_and_nothing_is_lost(world: World) -> None:
    relay = await ready(world.relay())
    await world.commit(0)
    await everything(relay)
    await relay.release()
    await eventually(lambda: drop(world))
    await world.commit(1)
    before = gaps("gone")
    successor = await ready(world.relay())
    await world.commit(2)
    await everything(successor)
    assert gaps("gone") == before + 1
    assert world.broker.numbers == [0, 1, 2]
    await successor.release()


async def drop(world: World) -> None:
    try:
        await world.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")
    except asyncpg.ObjectInUseError as error:
        raise AssertionError from error


async def test_a_slot_that_was_made_again_is_noticed_and_nothing_is_lost(world: World) -> None:
    """Its stream begins behind what was committed in between, and says nothing about it."""
    relay = await ready(world.relay())
    await world.commit(0)
    await everything(relay)
    await relay.release()
    await eventually(lambda: drop(world))
    await world.commit(1)
    await world.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    before = gaps("moved")
    successor = await ready(world.relay())
    await world.commit(2)
    await everything(successor)
    assert gaps("moved") == before + 1
    assert world.broker.numbers == [0, 1, 2]
    await successor.release()


@pytest.fixture
def small_log() -> Iterator[Postgres]:
    """A server that keeps no more than 16 MB of log for a slot."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    limits = {"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "48MB"}
    before = dict(SETTINGS)
    SETTINGS.update(limits)
    server = Postgres(path / "postgres", free_port())
    yield server
    server.stop()
    SETTINGS.clear()
    SETTINGS.update(before)
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.slow
async def test_a_slot_beyond_the_limit_is_noticed_and_nothing_is_lost(small_log: Postgres) -> None:
    await small_log.start()
    async with world_on(small_log) as world:
        relay = await ready(world.relay())
        await world.commit(0)
        await everything(relay)
        await relay.release()
        await world.commit(1)
        admin = await asyncpg.connect(small_log.dsn())

        async def lost() -> None:
            await admin.execute("SELECT pg_logical_emit_message(false, 'noise', 'x'), pg_switch_wal()")
            await admin.execute("CHECKPOINT")
            status = await admin.fetchval("SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", SLOT)
            assert status == "lost"

        await eventually(lost, within=30)
        await admin.close()
        before = gaps("lost")
        successor = await ready(world.relay())
        await world.commit(2)
        await everything(successor)
        assert gaps("lost") == before + 1
        assert world.broker.numbers == [0, 1, 2]
        await successor.release()


@pytest.mark.parametrize("k", [1, 49, 50, 777, 999])
async def test_a_death_in_the_middle_of_a_transaction_confirms_nothing_of_it(world: World, k: int) -> None:
    """All its rows stand at one place of the log: confirming a part of them would lose the others."""
    relay = await ready(world.relay(batch=50))
    await world.commit(-1)
    await everything(relay)
    await world.commit(*range(1000))
    begun = await world.end_of_log()
    world.broker.dies_after = k + 1
    with pytest.raises(SystemError):
        await everything(relay)
    assert await world.confirmed() < begun
    world.broker.dies_after = None
    await world.execute("UPDATE relay_lease SET expires_at = now() - interval '1 second'")
    successor = await ready(world.relay())
    await everything(successor)
    first = list(dict.fromkeys(world.broker.numbers))
    assert first == [-1, *range(1000)]
    await successor.release()
    await relay.release()


async def test_a_row_that_the_log_has_before_any_statement_sees_it_goes_out_once_and_away(
    world: World, postgres: Postgres
) -> None:
    """A commit is in the log before others see it; with synchronous replication, until the standby has answered. The
    delete right after the publishing then finds nothing, and must not be the last."""
    await world.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = 'local'")
    await world.engine.dispose()
    relay = await ready(world.relay())
    admin = await asyncpg.connect(postgres.dsn())
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await admin.execute("SELECT pg_reload_conf()")

    async def commit_and_wait() -> None:
        async with connect(world.engine) as connection:
            await connection.driver.execute("SET synchronous_commit = 'on'")
            await connection.driver.execute("BEGIN")
            message = Message(new_id(), "c", "k", {m.ID: new_id(), m.TYPE: "t", m.SEQUENCE: "0"}, b"{}")
            await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of([message]))])
            await connection.driver.execute("COMMIT")

    async def waits() -> None:
        assert await admin.fetchval("SHOW synchronous_standby_names") == "nobody"

    await eventually(waits)
    committing = asyncio.create_task(commit_and_wait())

    async def published() -> None:
        await relay.run_once()
        assert world.broker.numbers == [0]

    await eventually(published)
    assert not committing.done()
    assert await world.execute("SELECT 1 FROM outbox") == [], "nobody sees it yet"
    await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await admin.execute("SELECT pg_reload_conf()")
    await committing
    await admin.close()

    async def gone() -> None:
        await relay.run_once()
        assert await world.execute("SELECT 1 FROM outbox") == []
        assert relay._both.undeleted == {}

    await eventually(gone)
    assert world.broker.numbers == [0]
    await relay.release()
    await world.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")


async def test_a_quiet_outbox_beside_a_busy_database_keeps_no_log(world: World, postgres: Postgres) -> None:
    relay = world.relay(interval=0.1)
    running = asyncio.create_task(relay.run())
    admin = await asyncpg.connect(postgres.dsn())
    await admin.execute("CREATE TABLE IF NOT EXISTS busy (n integer)")
    await admin.execute("INSERT INTO busy SELECT generate_series(1, 10000)")
    written = await world.end_of_log()

    async def advanced() -> None:
        await admin.execute("INSERT INTO busy SELECT generate_series(1, 1000)")
        assert await world.confirmed() >= written

    await eventually(advanced, within=30)
    await admin.execute("DROP TABLE busy")
    await admin.close()
    relay.stop()
    await running


async def test_the_server_hears_what_is_published_and_need_not_keep_it(world: World) -> None:
    relay = world.relay(interval=0.1)
    running = asyncio.create_task(relay.run())
    await eventually(lambda: tails(relay))
    await world.commit(0)
    committed = await world.end_of_log()

    async def confirmed() -> None:
        assert await world.confirmed() >= committed

    await eventually(confirmed, within=30)
    relay.stop()
    await running


@pytest.mark.slow
async def test_a_slow_broker_does_not_cost_the_connection(world: World) -> None:
    """The server takes a reader that is silent for wal_sender_timeout for dead. Ours says that it lives, and reads on
    when the broker is ready."""
    await world.execute("ALTER ROLE CURRENT_USER SET wal_sender_timeout = '1s'")
    await world.engine.dispose()
    relay = world.relay()
    running = asyncio.create_task(relay.run())
    await eventually(lambda: tails(relay))
    walsender = "SELECT active_pid FROM pg_replication_slots WHERE active"
    before = await world.execute(walsender)
    world.broker.gate.clear()
    for n in range(5):
        await world.commit(*range(n * 2000, n * 2000 + 2000))
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def long_enough() -> None:
        assert loop.time() - began > 3.5

    await eventually(long_enough)
    world.broker.gate.set()

    async def all_published() -> None:
        assert len(world.broker.published) == 10_000

    await eventually(all_published, within=30)
    assert await world.execute(walsender) == before
    assert world.broker.numbers == list(range(10_000))
    relay.stop()
    await running
    await world.execute("ALTER ROLE CURRENT_USER RESET wal_sender_timeout")


async def tails(relay: LogTailing) -> None:
    assert not relay.sweeping


async def test_a_slot_that_a_predecessor_is_still_making_is_made_again(world: World) -> None:
    """Making one waits for every transaction that is running, also when the relay that wanted it has gone."""
    slot = world.relay().slot

    async def waiting(makers: int) -> None:
        found = await world.execute(f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{SLOT}'")
        assert [row[0] for row in found] == [None] * makers

    async def prepare() -> None:
        async with connect(world.engine) as connection:
            await slot.prepare(connection)

    async with begin(world.engine) as connection:
        await connection.execute(text("SELECT pg_current_xact_id()"))
        predecessor = asyncio.create_task(prepare())
        await eventually(lambda: waiting(1))
        successor = asyncio.create_task(prepare())
        await asyncio.wait([predecessor], timeout=10)
        assert isinstance(predecessor.exception(), TransientError)
        await eventually(lambda: waiting(1))
        assert not successor.done()
    await successor
    assert await world.confirmed() == slot.start_lsn > 0


async def test_slots_of_an_earlier_division_are_dropped(world: World) -> None:
    for relay in (world.relay(index=0, of=2), world.relay(index=1, of=2)):
        await ready(relay)
        await relay.release()
    one = await ready(world.relay())

    async def dropped() -> None:
        async with connect(world.engine) as connection:
            await one.slot.look_after(connection)
        slots = await world.execute(
            "SELECT CAST(slot_name AS text) FROM pg_replication_slots WHERE database = current_database()"
        )
        assert [row[0] for row in slots] == [SLOT]

    await eventually(dropped)
    assert REGISTRY.get_sample_value("ftgo_relay_retained_wal_bytes") is not None
    await one.release()


async def test_without_the_right_to_replicate_it_polls(world: World, postgres: Postgres) -> None:
    admin = await asyncpg.connect(postgres.dsn())
    await admin.execute("ALTER ROLE ftgo_tailing NOREPLICATION")
    try:
        relay = world.relay()
        running = asyncio.create_task(relay.run())

        async def refused() -> None:
            assert relay._opening.failures

        async def published(numbers: list[int]) -> None:
            assert world.broker.numbers == numbers
            assert await world.execute("SELECT 1 FROM outbox") == []

        await eventually(refused)
        for n in range(3):
            await world.commit(n)
            await eventually(lambda n=n: published([*range(n + 1)]))
        assert relay.sweeping
        assert len(relay._both._swept) <= 1, "no stream will ever show them: they are not remembered"
        relay.stop()
        await running
    finally:
        await admin.execute("ALTER ROLE ftgo_tailing REPLICATION")
        await admin.close()


# -- rounds ----------------------------------------------------------------------------------------------------------


async def test_what_a_sweep_has_published_the_log_brings_no_second_time(world: World) -> None:
    relay = await ready(world.relay())
    await world.commit(0)
    relay.sweeping = True
    assert await relay.run_once() == 1
    assert not relay.sweeping
    relay._batch = 1  # the beginning of the transaction, the row, its end
    for _ in range(6):
        await relay._round(0.05)
    assert world.broker.numbers == [0]
    await relay.release()


async def test_a_broken_stream_is_told_and_opened_again(world: World) -> None:
    relay = await ready(world.relay())
    await world.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")

    async def broken() -> None:
        try:
            await relay.run_once()
        except StreamBroken:
            return
        raise AssertionError("not noticed yet")

    await eventually(broken)
    await world.commit(0)
    await ready(relay)
    await world.commit(1)
    await everything(relay)
    assert world.broker.numbers == [0, 1]
    await relay.release()


async def test_a_relay_whose_lease_has_gone_leaves_the_slot_to_its_successor(world: World) -> None:
    relay = await ready(world.relay(lease_seconds=1000))
    await world.execute("UPDATE relay_lease SET owner = 'another', expires_at = now() + interval '1 hour'")
    relay.lease._asked -= 400  # so long ago: it is to be renewed
    assert await relay.run_once() == 0
    assert (relay.status.role, relay.sweeping) == ("standby", True)

    async def left() -> None:
        assert await world.execute("SELECT 1 FROM pg_replication_slots WHERE active") == []

    await eventually(left)
    began = asyncio.get_running_loop().time()
    for _ in range(10):
        await relay._round(0.1)
    # A round is shorter when the lease is to be asked for; the one after it is not.
    assert asyncio.get_running_loop().time() - began > 0.49, "a standby waits"
    await world.execute("UPDATE relay_lease SET expires_at = now() - interval '1 second'")
    successor = await ready(world.relay())
    assert successor.status.role == "owner"
    await successor.release()
    await relay.release()


async def test_a_sweep_does_not_end_by_the_loss_of_the_lease(world: World) -> None:
    relay = await ready(world.relay(lease_seconds=1000))
    await world.commit(0)
    await world.execute("UPDATE relay_lease SET epoch = epoch + 1")  # another has had it in between
    relay.sweeping = True
    assert await relay.run_once() == 0
    assert relay.sweeping
    await ready(relay)
    assert world.broker.numbers == [0, 0]
    assert await world.execute("SELECT 1 FROM outbox") == []
    await relay.release()


async def test_what_a_round_has_read_before_it_failed_is_swept(world: World) -> None:
    relay = await ready(world.relay())
    await world.commit(0)
    await everything(relay)
    relay._log._columns.clear()  # the server names the columns once
    await world.commit(1)
    with pytest.raises(KeyError):
        await everything(relay)
    assert relay.sweeping
    await ready(relay)
    assert world.broker.numbers == [0, 1]
    await relay.release()


async def test_a_row_that_the_log_does_not_bring_is_missed_and_swept(world: World) -> None:
    relay = await ready(world.relay())
    await world.execute("ALTER PUBLICATION outbox_inserts DROP TABLE outbox")
    await world.commit(0)
    await world.execute("ALTER PUBLICATION outbox_inserts ADD TABLE outbox")
    assert await relay.run_once() == 0
    for _ in range(2):  # a row may be on its way at the first look
        assert world.broker.numbers == []
        relay._looked_at -= LOOK_SECONDS + 1
        await relay.run_once()
    assert world.broker.numbers == [0]
    await relay.release()


async def test_a_relay_that_waits_for_the_log_hears_that_it_is_to_end(world: World) -> None:
    relay = await ready(world.relay(interval=1000, lease_seconds=3000))
    running = asyncio.create_task(relay.run())
    await world.commit(0)

    async def published() -> None:
        assert relay.status.last_round > 0
        assert world.broker.numbers == [0]

    await eventually(published)

    async def ended() -> None:
        relay.stop()
        assert running.done()

    await eventually(ended)
    await running
    held = await world.execute("SELECT count(*) FROM relay_lease WHERE expires_at > now()")
    assert [row[0] for row in held] == [0]


async def test_rows_that_could_not_be_published_are_owed_until_a_sweep_has_them(world: World) -> None:
    relay = await ready(world.relay())
    world.broker.refuses = True
    await world.commit(0)

    async def refused() -> None:
        await relay.run_once()
        assert relay.sweeping

    await eventually(refused)
    assert len(relay._both.owed) == 1
    assert relay.status.found == 1
    world.broker.refuses = False
    await ready(relay)
    assert world.broker.numbers == [0]
    assert relay._both.owed == {}
    await relay.release()


async def test_a_relay_rests_after_what_the_log_has_brought(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for a hundred rows; each round has its first for nothing."""
    monkeypatch.setattr(polling, "REST", 1.0)
    relay = await ready(world.relay())
    await world.commit(*range(100))
    rounds, began = 0, asyncio.get_running_loop().time()
    while len(world.broker.published) < 100:
        await relay._round(1.0)
        rounds += 1
    assert asyncio.get_running_loop().time() - began > 0.98 * (100 - rounds) / 99
    await relay.release()


async def test_a_relay_ends_quietly_while_the_database_is_away() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody:x@127.0.0.1:1/nowhere")
    await LogTailing(engine, Recorder(), WakeUp(), service="tailing").release()
    await engine.dispose()
