"""How full an outbox is: counted, not guessed from its positions, and with room between full and open."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.outbox.bound import OutboxBound
from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.runtime.errors import Overloaded
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.outbox import outbox_database
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture
async def engine(postgres: Postgres) -> AsyncIterator[AsyncEngine]:
    dsn = (await postgres.create_service_databases(["bound"]))["bound"]
    async with outbox_database(dsn) as engine:
        yield engine


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with connect(engine) as connection:
        for statement in statements:
            await connection.execute(text(statement))


def insert(count: int) -> str:
    return (
        "INSERT INTO outbox (message_id, channel, key, shard, headers, body) "
        f"SELECT gen_random_uuid(), 'c', 'k', 0, '{{}}', '' FROM generate_series(1, {count})"
    )


async def test_full_at_the_limit_and_open_again_below_nine_tenths(engine: AsyncEngine) -> None:
    bound = OutboxBound(engine, 10)
    seen = []
    for change in (
        insert(9),
        insert(1),
        "DELETE FROM outbox WHERE position = 10",
        "DELETE FROM outbox WHERE position = 9",
    ):
        await run(engine, change)
        await bound.look()
        seen.append(bound.full)
    assert seen == [False, True, True, False]
    bound.admit()
    await run(engine, insert(5))
    await bound.look()
    with pytest.raises(Overloaded, match="10 messages wait") as refusal:
        bound.admit()
    assert refusal.value.retry_after == 10


async def test_it_is_watched_until_the_service_ends(engine: AsyncEngine) -> None:
    await run(engine, insert(10))
    bound = OutboxBound(engine, 10)
    watching = asyncio.create_task(bound.watch(every=0.01))

    async def full() -> None:
        assert bound.full

    await eventually(full)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_row_that_stays_behind_does_not_fill_it(engine: AsyncEngine) -> None:
    await run(engine, insert(100), "DELETE FROM outbox WHERE position > 1", insert(8))
    bound = OutboxBound(engine, 10)
    await bound.look()
    assert not bound.full
    assert REGISTRY.get_sample_value("ftgo_outbox_span") == 108
