"""What a lease is worth: who has lost a shard sends nothing of it, and deletes nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.delivery import FAILED, NOTHING, PUBLISHED, Delivery, LeaseLost, Round, Row
from ftgo_messaging.outbox.lease import Lease
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.outbox.table import SHARDS, shards_of
from ftgo_messaging.runtime.connection import Connection, begin, connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.outbox import outbox_database
from ftgo_messaging.transaction import rows as rows_
from ftgo_messaging.transports.port import Sent
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine


class Owner:
    """Of all shards unless it is told, with a clock of its own. The broker refuses the keys of ``refuse``."""

    def __init__(self, engine: AsyncEngine, shards: Sequence[int] = range(SHARDS)) -> None:
        self.now = 1000.0
        self.sent: list[Message] = []
        self.refuse: set[str] = set()
        self.engine = engine
        self.lease = Lease(shards, 10.0, lambda: self.now)
        self.delivery = Delivery(self, self.lease)

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        accepted = [message.key not in self.refuse for message in messages]
        self.sent += [message for message, ok in zip(messages, accepted, strict=True) if ok]
        return [Sent.CONFIRMED if ok else Sent.REFUSED for ok in accepted]

    async def hold(self) -> bool:
        async with connect(self.engine) as connection:
            return await self.lease.hold(connection)

    async def deliver(self, rows: Sequence[Row]) -> int:
        async with connect(self.engine) as connection:
            return (await self.delivery.deliver(connection, rows)).deleted


class World:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def execute(self, sql: str) -> list[Any]:
        async with connect(self.engine) as connection:
            return await connection.execute(text(sql))

    async def commit(self, *messages: Message) -> None:
        async with connect(self.engine) as connection:
            await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of(messages))])

    async def rows(self) -> list[Row]:
        """Of two keys in two shards, committed."""
        messages = [message("a"), message("b")]
        await self.commit(*messages)
        found = await self.execute("SELECT position, shard FROM outbox ORDER BY position")
        rows = [Row(r[0], r[1], message) for r, message in zip(found, messages, strict=True)]
        assert len({row.shard for row in rows}) == 2
        return rows

    async def left(self) -> list[int]:
        return [row[0] for row in await self.execute("SELECT shard FROM outbox ORDER BY position")]

    async def lease_ends(self) -> None:
        await self.execute("UPDATE relay_lease SET expires_at = now() - interval '1 second'")

    async def one_waits(self, task: asyncio.Task[Any]) -> None:
        """For a lock, and has not got through."""

        async def waits() -> None:
            if task.done():
                pytest.fail("it did not wait")
            sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            assert len(await self.execute(sql)) == 1

        await eventually(waits)


def message(key: str, body: bytes = b"{}") -> Message:
    return Message(new_id(), "c", key, {m.ID: new_id()}, body)


@pytest.fixture
async def world(postgres: Postgres) -> AsyncIterator[World]:
    dsn = (await postgres.create_service_databases(["delivery"]))["delivery"]
    async with outbox_database(dsn) as engine:
        yield World(engine)


async def test_an_owner_publishes_and_deletes(world: World) -> None:
    owner = Owner(world.engine)
    assert await owner.hold()
    assert await owner.deliver(await world.rows()) == 2
    assert len(owner.sent) == 2
    assert await world.left() == []


async def test_an_owner_that_was_paused_for_longer_than_its_lease_sends_nothing(world: World) -> None:
    """Between finding and sending. Somebody else may have sent these rows by now, and later ones of their keys."""
    owner = Owner(world.engine)
    assert await owner.hold()
    rows = await world.rows()
    owner.now += 9.1
    with pytest.raises(LeaseLost):
        await owner.deliver(rows)
    assert owner.sent == []
    assert len(await world.left()) == 2
    assert (owner.lease.held, owner.lease.renew_in) == ({}, 0), "it asks again before anything else"


async def test_a_shard_that_was_lost_keeps_its_rows_and_the_others_go(world: World) -> None:
    owner = Owner(world.engine)
    assert await owner.hold()
    mine, lost = await world.rows()
    await world.execute(f"UPDATE relay_lease SET owner = 'another', epoch = epoch + 1 WHERE shard = {lost.shard}")
    with pytest.raises(LeaseLost, match="took over 1 shards"):
        await owner.deliver([mine, lost])
    assert await world.left() == [lost.shard]


async def test_a_shard_that_was_lost_and_won_back_in_between_keeps_its_rows(world: World) -> None:
    """The owner is the same, the epoch is not: another relay may be sending what it found in the meantime."""
    owner = Owner(world.engine)
    assert await owner.hold()
    rows = await world.rows()
    await world.execute("UPDATE relay_lease SET epoch = epoch + 2")
    with pytest.raises(LeaseLost, match="took over 2 shards"):
        await owner.deliver(rows)
    assert len(await world.left()) == 2


async def test_a_delete_waits_for_a_take_over_that_is_under_way(world: World) -> None:
    """Deleted in the middle of it, the rows would be gone before the new owner has found them, and before anybody
    knows whether all of them were sent."""
    owner, successor = Owner(world.engine), Owner(world.engine)
    assert await owner.hold()
    rows = await world.rows()
    await world.lease_ends()
    async with begin(world.engine) as taking_over:
        assert await successor.lease.hold(taking_over)
        delivering = asyncio.create_task(owner.deliver(rows))
        await world.one_waits(delivering)
    with pytest.raises(LeaseLost, match="took over 2 shards"):
        await delivering
    assert len(await world.left()) == 2


async def test_every_take_over_raises_the_epoch_and_no_renewal_does(world: World) -> None:
    one, two = Owner(world.engine), Owner(world.engine)
    for owner, epoch in ((one, 1), (two, 2), (one, 3), (one, 3)):
        await world.lease_ends()
        owner.lease.forget()
        assert await owner.hold()
        assert set(owner.lease.held.values()) == {epoch}


async def test_of_two_relays_that_ask_at_once_one_holds_the_shards(world: World) -> None:
    """Neither sees the other when it begins to ask."""
    first, second = Owner(world.engine), Owner(world.engine)
    async with begin(world.engine) as connection:
        assert await first.lease.hold(connection)
        asking = asyncio.create_task(second.hold())
        await world.one_waits(asking)
    assert not await asking
    assert len(first.lease.held) == SHARDS
    assert {row[0] for row in await world.execute("SELECT owner FROM relay_lease")} == {first.lease.owner}


async def test_a_release_ends_the_own_lease_alone(world: World) -> None:
    one, two = (Owner(world.engine, shards_of(index, 2)) for index in range(2))
    assert await one.hold()
    assert await two.hold()
    async with connect(world.engine) as connection:
        await one.lease.release(connection)
    assert not one.lease.held
    ended = await world.execute("SELECT owner, count(*) FROM relay_lease WHERE expires_at <= now() GROUP BY owner")
    assert [tuple(row) for row in ended] == [(one.lease.owner, SHARDS // 2)]


async def test_a_shard_that_is_lost_while_kafka_takes_its_time_cuts_the_sending_off(world: World) -> None:
    """What is still in the producer must not arrive behind newer messages of the new owner."""
    owner = Owner(world.engine)
    assert await owner.hold()
    rows = await world.rows()
    await world.execute("UPDATE relay_lease SET owner = 'another', epoch = epoch + 1")
    owner.now += 4  # it is time to renew
    cut_off = asyncio.Event()

    async def slow(_: Sequence[Message]) -> list[Sent]:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()
        return []

    owner.publish = slow  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        with pytest.raises(LeaseLost, match="another relay took over while"):
            await owner.deliver(rows)
    assert cut_off.is_set()
    assert owner.lease.renew_in == 0, "it asks again before anything else"
    assert len(await world.left()) == 2


class Cut(Connection):
    """Cannot be used for its next statement."""

    def __init__(self, driver: Any) -> None:
        super().__init__(driver)
        self.tried = asyncio.Event()

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        if not self.tried.is_set():
            self.tried.set()
            raise ConnectionResetError
        return await super().execute(statement, parameters)


@pytest.mark.parametrize(("seconds", "left"), [(4.0, 0), (9.1, 2)])
async def test_a_renewal_that_fails_matters_when_the_lease_may_have_ended(
    world: World, seconds: float, left: int
) -> None:
    owner = Owner(world.engine)
    assert await owner.hold()
    rows = await world.rows()
    owner.now += 4  # it is time to renew
    async with connect(world.engine) as connection:
        cut = Cut(connection.driver)

        async def slow(messages: Sequence[Message]) -> list[Sent]:
            owner.now += seconds - 4
            await cut.tried.wait()
            await asyncio.sleep(0)
            return [Sent.CONFIRMED] * len(messages)

        owner.publish = slow  # type: ignore[method-assign]
        if left:
            with pytest.raises(LeaseLost, match="could not be renewed"):
                await owner.delivery.deliver(cut, rows)
        else:
            assert (await owner.delivery.deliver(cut, rows)).deleted == 2
    assert len(await world.left()) == left


async def test_a_round_tells_what_it_did(world: World) -> None:
    def counted() -> tuple[float, float]:
        return PUBLISHED._value.get(), FAILED._value.get()

    before = counted()
    owner = Owner(world.engine)
    owner.refuse = {"bad"}
    relay = PollingPublisher(world.engine, owner, WakeUp())
    assert relay.status.role == "starting"
    old = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await world.commit(replace(message("good"), headers={m.TIME: old}), message("bad"))
    done = await relay.publish_batch()
    assert (done.found, done.deleted, done.all_deleted) == (2, 1, True)
    status = relay.status
    assert (status.role, status.shards, status.published, status.found) == ("owner", SHARDS, 1, 2)
    assert status.stopped_keys == 1
    assert status.oldest_age == pytest.approx(3600, abs=60)
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1]
    await world.execute("DELETE FROM outbox")
    assert await relay.publish_batch() == NOTHING
    assert (status.found, status.oldest_age) == (0, 0.0)
    await world.commit(message("late"))
    await relay.publish_batch()
    standby = PollingPublisher(world.engine, Owner(world.engine), WakeUp())
    await world.commit(message("late"))
    assert await standby.publish_batch() == NOTHING
    assert (standby.status.role, standby.status.found) == ("standby", 0)


async def test_a_round_that_loses_its_lease_tells_what_it_found_and_ends(world: World) -> None:
    owner = Owner(world.engine)
    relay = PollingPublisher(world.engine, owner, WakeUp())

    async def taken_over(messages: Sequence[Message]) -> list[Sent]:
        await world.execute("UPDATE relay_lease SET owner = 'another', epoch = epoch + 1")
        return [Sent.CONFIRMED] * len(messages)

    owner.publish = taken_over  # type: ignore[method-assign]
    await world.rows()
    assert await relay.publish_batch() == Round(2)
    assert relay.lease.renew_in == 0, "it asks again before anything else"
    assert await relay.publish_batch() == NOTHING


async def test_a_publisher_that_answers_for_fewer_messages_than_it_got_deletes_nothing(world: World) -> None:
    owner = Owner(world.engine)
    assert await owner.hold()

    async def one_answer(messages: Sequence[Message]) -> list[Sent]:
        return [Sent.CONFIRMED]

    owner.publish = one_answer  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="shorter"):
        await owner.deliver(await world.rows())
    assert len(await world.left()) == 2


# -- what the polling publisher finds --------------------------------------------------------------------------------


async def test_rows_are_published_by_position_wherever_they_lie(world: World) -> None:
    """Room in the table is used again, so a later row may lie in front of an earlier one; nor do ids tell."""
    ids = sorted(new_id() for _ in range(4))
    gone, *messages = [Message(ids[n], "c", "k", {}, str(n).encode()) for n in (3, 2, 1, 0)]
    await world.commit(gone, *messages[:2])
    await world.execute("DELETE FROM outbox WHERE body = '3'")
    await world.execute("VACUUM outbox")
    await world.commit(messages[2])
    lying = [bytes(row[0]) for row in await world.execute("SELECT body FROM outbox ORDER BY ctid")]
    assert lying == [b"0", b"2", b"1"], "the last one should have got the place of the first"
    owner = Owner(world.engine)
    relay = PollingPublisher(world.engine, owner, WakeUp())
    assert await relay.run_once() == 3
    assert [x.body for x in owner.sent] == [b"2", b"1", b"0"]


async def test_a_relay_publishes_its_own_shards_alone(world: World) -> None:
    messages = [message(key) for key in "abcdefgh"]
    await world.commit(*messages)
    shards: dict[int, set[int]] = {}
    for index in range(2):
        owner = Owner(world.engine)
        await PollingPublisher(world.engine, owner, WakeUp(), index=index, of=2).run_once()
        shards[index] = {writer.shard_of(x.key) % 2 for x in owner.sent}
    assert shards == {0: {0}, 1: {1}}
    assert await world.left() == []


async def test_a_stopped_key_hides_nothing_behind_it(world: World) -> None:
    """Not the rows of others, however few a batch takes, nor the same key of another channel."""
    owner = Owner(world.engine)
    owner.refuse = {"bad"}
    relay = PollingPublisher(world.engine, owner, WakeUp(), batch=2)
    await world.commit(message("bad"), message("bad"), message("good"))
    assert await relay.run_once() == 0
    assert await relay.run_once() == 1
    assert [x.key for x in owner.sent] == ["good"]
    owner.refuse.clear()

    async def tried_again() -> None:
        await relay.run_once()
        assert [x.key for x in owner.sent] == ["good", "bad", "bad"]

    await eventually(tried_again)
    assert not relay.delivery.stopped
    assert relay.status.stopped_keys == 0


async def test_a_relay_publishes_until_it_is_stopped_and_gives_its_lease_back(world: World) -> None:
    owner, wake_up = Owner(world.engine), WakeUp()
    relay = PollingPublisher(world.engine, owner, wake_up)
    running = asyncio.create_task(relay.run())
    for n in range(1, 4):
        await world.commit(message("a"), message("b"))
        wake_up.ring()

        async def published(n: int = n) -> None:
            assert len(owner.sent) == 2 * n
            assert await world.left() == []

        await eventually(published, within=5)
    assert relay.status.last_round > 0
    assert await world.execute("SELECT 1 FROM relay_lease WHERE expires_at > now()") != []
    relay.stop()
    async with asyncio.timeout(5):
        await running
    assert await world.execute("SELECT 1 FROM relay_lease WHERE expires_at > now()") == []


async def test_a_relay_is_not_ended_by_its_lease_that_cannot_be_given_back(world: World) -> None:
    relay = PollingPublisher(world.engine, Owner(world.engine), WakeUp())
    await relay.run_once()
    await world.execute("ALTER TABLE relay_lease RENAME TO away")
    await relay.release()
    assert await world.execute("SELECT 1 FROM away WHERE expires_at > now()") != []
    await world.execute("ALTER TABLE away RENAME TO relay_lease")


# -- the fence of generations ----------------------------------------------------------------------------------------


async def test_who_has_heard_of_a_move_gets_the_shards_and_who_has_not_never_again(world: World) -> None:
    early, late = Owner(world.engine), Owner(world.engine)
    early.lease.generation = late.lease.generation = 1
    assert await late.hold()
    early.lease.generation = 2
    assert not await early.hold()  # the other's lease has not ended
    await world.lease_ends()
    early.lease.forget()
    assert await early.hold()
    for _ in range(2):
        await world.lease_ends()
        late.lease.forget()
        assert not await late.hold()
    late.lease.generation = 2
    assert await late.hold()
    assert set(late.lease.held.values()) == {3}


async def test_a_new_generation_is_written_before_anything_is_sent(world: World) -> None:
    owner = Owner(world.engine)
    owner.lease.generation = 1
    assert await owner.hold()
    assert owner.lease.sure
    owner.lease.generation = 2
    assert not owner.lease.sure
    assert owner.lease.renew_in == 0
    assert await owner.hold()
    assert owner.lease.sure
    assert set(owner.lease.held.values()) == {1}  # the same owner
    assert [row[0] for row in await world.execute("SELECT DISTINCT generation FROM relay_lease")] == [2]


async def test_a_generation_that_comes_while_the_lease_is_renewed_is_asked_for_once_more(world: World) -> None:
    owner = Owner(world.engine)
    owner.lease.generation = 1
    async with begin(world.engine) as connection:
        asking = asyncio.create_task(owner.lease.hold(connection))
        await asyncio.sleep(0)
        owner.lease.generation = 2
        assert await asking
        assert not owner.lease.sure
        assert owner.lease.renew_in == 0


async def test_a_relay_whose_broker_is_fixed_knows_no_fence_and_keeps_the_number(world: World) -> None:
    moved, fixed = Owner(world.engine), Owner(world.engine)
    moved.lease.generation = 7
    assert await moved.hold()
    await world.lease_ends()
    assert await fixed.hold()
    assert [row[0] for row in await world.execute("SELECT DISTINCT generation FROM relay_lease")] == [7]


async def test_an_older_generation_neither_renews_nor_makes_a_shard(world: World) -> None:
    """Of the shards that were taken in between it gets none, of the others all."""
    old, new = Owner(world.engine), Owner(world.engine, [0, 1])
    old.lease.generation, new.lease.generation = 1, 2
    assert await new.hold()
    await world.lease_ends()
    assert await old.hold()
    assert old.lease.held.keys() == set(range(2, SHARDS))
