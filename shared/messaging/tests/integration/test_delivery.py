"""What a lease is worth: who has lost a shard sends nothing of it, and deletes nothing."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging import message as m
from ftgo_messaging import rows as rows_
from ftgo_messaging.connection import connect
from ftgo_messaging.ids import new_id
from ftgo_messaging.message import Message
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.delivery import Delivery, LeaseLost, Row
from ftgo_messaging.outbox.lease import Lease
from ftgo_messaging.outbox.table import SHARDS
from ftgo_messaging.testing.outbox import outbox_database
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


class Owner:
    """Of all shards, with a clock of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.now = 1000.0
        self.sent: list[Message] = []
        self.engine = engine
        self.lease = Lease(range(SHARDS), 10.0, lambda: self.now)
        self.delivery = Delivery(self, self.lease)

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        self.sent += messages
        return [True] * len(messages)

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

    async def rows(self) -> list[Row]:
        """Of two keys in two shards, committed."""
        messages = [Message(new_id(), "c", key, {m.ID: new_id()}, b"{}") for key in ("a", "b")]
        async with connect(self.engine) as connection:
            await rows_.write(connection, [rows_.Write(writer.OUTBOX, writer.rows_of(messages))])
        found = await self.execute("SELECT position, shard FROM outbox ORDER BY position")
        rows = [Row(r[0], r[1], message) for r, message in zip(found, messages, strict=True)]
        assert len({row.shard for row in rows}) == 2
        return rows

    async def left(self) -> list[int]:
        return [row[0] for row in await self.execute("SELECT shard FROM outbox ORDER BY position")]


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
    assert owner.lease.renew_in == 0, "it asks again before anything else"


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
