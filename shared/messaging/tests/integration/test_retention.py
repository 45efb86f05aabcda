"""What is old enough goes, in batches; what is not, or not yet done with, stays."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.tables import dead_letters_table, processed_messages_table
from ftgo_messaging.sagas.instance import saga_instances_table
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.upkeep import retention
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

METADATA = MetaData()
processed_messages_table(METADATA)
dead_letters_table(METADATA)
saga_instances_table(METADATA)
WEEKS = timedelta(days=14)

# A UUIDv7 of so many days ago.
BORN = (
    "CAST(lpad(to_hex(CAST(extract(epoch FROM now() - interval '1 day' * {days}) * 1000 AS bigint)), 12, '0') || "
    "'7' || substr(md5(random()::text), 1, 19) AS uuid)"
)
HANDLED = (
    "INSERT INTO processed_messages (consumer, message_id, processed_at) "
    "SELECT '{consumer}', {id}, now() - interval '1 day' * {days} FROM generate_series(1, {count})"
)


@pytest.fixture
async def engine(postgres: Postgres) -> AsyncIterator[AsyncEngine]:
    dsn = (await postgres.create_service_databases(["retention"]))["retention"]
    async with new_tables(dsn, METADATA) as engine:
        yield engine


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def one(engine: AsyncEngine, sql: str) -> object:
    async with engine.connect() as connection:
        return (await connection.execute(text(sql))).scalar_one()


async def test_old_ids_of_every_consumer_go(engine: AsyncEngine) -> None:
    for consumer in ("a", "b"):
        for days, count in ((20, 12_000), (13, 100)):
            values = {"consumer": consumer, "id": BORN.format(days=days), "days": days, "count": count}
            await run(engine, HANDLED.format(**values))
    rules = [retention.processed_messages(WEEKS)]
    counts = await asyncio.gather(*(retention.retain(engine, rules) for _ in range(2)))
    assert sum(counts) == 24_000
    assert await one(engine, "SELECT count(*) FROM processed_messages") == 200


async def test_an_old_id_that_was_handled_lately_and_a_late_look_alike_stay(engine: AsyncEngine) -> None:
    old = BORN.format(days=100)
    await run(
        engine,
        HANDLED.format(consumer="a", id=old, days=1, count=10),
        HANDLED.format(consumer="a", id="gen_random_uuid()", days=1, count=1000),  # no UUIDv7: some look old
    )
    assert await retention.retain(engine, [retention.processed_messages(WEEKS)]) == 0


async def test_the_range_is_read_from_the_primary_key(engine: AsyncEngine) -> None:
    await run(engine, HANDLED.format(consumer="a", id=BORN.format(days=5), days=5, count=50_000), "ANALYZE")
    parameters = {
        "consumer": "'a'",
        "after": "'00000000-0000-0000-0000-000000000000'",
        "before": f"'{retention._first_id_after(WEEKS.total_seconds())}'",
        "seconds": "1209600",
        "limit": "5000",
    }
    statement = str(retention._MESSAGES)
    for name, value in parameters.items():
        statement = statement.replace(f":{name}", value)
    async with engine.connect() as connection:
        plan = "\n".join(row[0] for row in await connection.execute(text(f"EXPLAIN {statement}")))
    assert "processed_messages_pkey" in plan
    assert "Seq Scan on processed_messages" not in plan


async def test_letters_go_when_they_are_resolved_and_old(engine: AsyncEngine) -> None:
    for state, resolved in (
        ("DEAD", "NULL"),
        ("PARKED", "NULL"),
        ("REDRIVEN", "now() - interval '40 days'"),
        ("DISCARDED", "now() - interval '40 days'"),
        ("DISCARDED", "now() - interval '20 days'"),
    ):
        await run(
            engine,
            "INSERT INTO dead_letters (consumer, channel, partition, position, headers, error, failed_at, state, "
            f"resolved_at) VALUES ('a', 'c', 0, 0, '[]', '', now() - interval '90 days', '{state}', {resolved})",
        )
    assert await retention.retain(engine, [retention.dead_letters(timedelta(days=30))]) == 2
    assert await one(engine, "SELECT string_agg(state, ' ' ORDER BY id) FROM dead_letters") == "DEAD PARKED DISCARDED"


async def test_sagas_go_when_they_have_ended_and_are_old(engine: AsyncEngine) -> None:
    for days, deadline, finished in ((40, 40, True), (40, 40, False), (40, 1, True), (5, 5, True)):
        await run(
            engine,
            "INSERT INTO saga_instances (saga_id, type, definition_version, state, step, data, deadline, attempts, "
            f"history, finished, version) VALUES ({BORN.format(days=days)}, 't', 1, 's', 's', '{{}}', "
            f"now() - interval '1 day' * {deadline}, 1, '[]', {finished}, 1)",
        )
    assert await retention.retain(engine, [retention.finished_sagas(timedelta(days=30))]) == 1
    assert await one(engine, "SELECT count(*) FROM saga_instances") == 3
