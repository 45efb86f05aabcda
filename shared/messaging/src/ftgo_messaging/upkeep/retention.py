"""Deletes what is old enough, in small transactions, in the background: growth is bounded, and nobody waits for it.

What was handled must be remembered for longer than the broker keeps messages. A message that is read again after its
record was deleted, by a group whose offsets were reset for instance, would take effect twice.

Old rows are found through the primary keys. Message and saga ids are UUIDv7 and begin with their time of birth, so
"older than two weeks" is a range of the key, and no insert pays for a second index (docs/adr/0007).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.runtime.connection import Connection, connect
from ftgo_messaging.runtime.loops import periodic

log = structlog.get_logger("ftgo.retention")

DELETED = Counter("ftgo_retention_deleted_total", "Rows deleted because of their age", ["table"])

_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_BATCH = 5000
_PAUSE_SECONDS = 0.05

# Names of consumers by hops over the primary key: one look per name, however many rows.
_CONSUMERS = text(
    "WITH RECURSIVE names AS (SELECT min(consumer) AS name FROM processed_messages UNION ALL "
    "SELECT (SELECT min(consumer) FROM processed_messages WHERE consumer > names.name) FROM names "
    "WHERE names.name IS NOT NULL) SELECT name FROM names WHERE name IS NOT NULL"
)
# By the id *and* by the time: ids of others may be no UUIDv7, and an old id may have been handled only just now.
_MESSAGES = text(
    "WITH gone AS (DELETE FROM processed_messages WHERE (consumer, message_id) IN ("
    "SELECT consumer, message_id FROM processed_messages WHERE consumer = :consumer "
    "AND message_id > CAST(:after AS uuid) AND message_id < CAST(:before AS uuid) "
    "AND processed_at < now() - make_interval(secs => :seconds) "
    "ORDER BY message_id LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING message_id) "
    "SELECT count(*), max(CAST(message_id AS text)) FROM gone"
)
_SAGAS = text(
    "WITH gone AS (DELETE FROM saga_instances WHERE saga_id IN ("
    "SELECT saga_id FROM saga_instances WHERE saga_id < CAST(:before AS uuid) "
    "AND finished AND deadline < now() - make_interval(secs => :seconds) "
    "ORDER BY saga_id LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)


@dataclass(frozen=True)
class Rule:
    """Rows of ``table`` are kept for ``keep``. ``delete`` deletes old ones and returns how many, 0 when none are left;
    it is called with the engine and ``keep`` in seconds."""

    table: str
    keep: timedelta
    delete: Callable[[AsyncEngine, float], Awaitable[int]]


def processed_messages(keep: timedelta) -> Rule:
    """Ids of handled messages. Those that are no UUIDv7 may be kept for ever."""
    return Rule("processed_messages", keep, _delete_messages)


def finished_sagas(keep: timedelta) -> Rule:
    """Saga instances that have ended, counted from the last deadline that they had."""

    async def delete(engine: AsyncEngine, seconds: float) -> int:
        parameters = {"before": _first_id_after(seconds), "seconds": seconds, "limit": _BATCH}
        async with connect(engine) as connection:
            return int((await connection.execute(_SAGAS, parameters))[0][0])

    return Rule("saga_instances", keep, delete)


def dead_letters(keep: timedelta) -> Rule:
    """Letters that are resolved. One that waits for somebody is kept until that."""
    return rows_since("dead_letters", "resolved_at", keep)


def rows_since(table: str, column: str, keep: timedelta) -> Rule:
    """Rows of any table by a time, which needs an index."""
    statement = text(
        f"WITH gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 - names from our own code
        f"SELECT ctid FROM {table} WHERE {column} < now() - make_interval(secs => :seconds) "
        f"ORDER BY {column} LIMIT :limit FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"
    )

    async def delete(engine: AsyncEngine, seconds: float) -> int:
        async with connect(engine) as connection:
            return int((await connection.execute(statement, {"seconds": seconds, "limit": _BATCH}))[0][0])

    return Rule(table, keep, delete)


async def retain(engine: AsyncEngine, rules: Sequence[Rule]) -> int:
    """Delete all that is old enough; returns how many rows. Several processes may do so at the same time."""
    total = 0
    for rule in rules:
        while count := await rule.delete(engine, rule.keep.total_seconds()):
            DELETED.labels(rule.table).inc(count)
            total += count
            await asyncio.sleep(_PAUSE_SECONDS)  # leave the disk to those who are waited for
    return total


async def retain_forever(engine: AsyncEngine, rules: Sequence[Rule], every: float = 60.0) -> None:
    """Delete now and then, until cancelled. Survives outages of the database."""

    async def delete() -> None:
        if deleted := await retain(engine, rules):
            log.info("retention.deleted", rows=deleted)

    await periodic("retention", delete, every)


async def _delete_messages(engine: AsyncEngine, seconds: float) -> int:
    before, total = _first_id_after(seconds), 0
    async with connect(engine) as connection:
        names = [row[0] for row in await connection.execute(_CONSUMERS)]
    for name in names:
        total += await _delete_of_consumer(engine, name, before, seconds)
    return total


async def _delete_of_consumer(engine: AsyncEngine, consumer: str, before: str, seconds: float) -> int:
    # On from the last id that was deleted: the index keeps its entries until vacuum comes.
    after, total = _FIRST_ID, 0
    while True:
        parameters = {"consumer": consumer, "after": after, "before": before, "seconds": seconds, "limit": _BATCH}
        async with connect(engine) as connection:
            count, last = await _counted(connection, parameters)
        total += count
        if last is None:
            return total
        after = last
        await asyncio.sleep(_PAUSE_SECONDS)


async def _counted(connection: Connection, parameters: dict[str, object]) -> tuple[int, str | None]:
    row = (await connection.execute(_MESSAGES, parameters))[0]
    return int(row[0]), row[1]


def _first_id_after(seconds_ago: float) -> str:
    """The smallest UUIDv7 that could have been born then."""
    milliseconds = f"{max(0, int((time.time() - seconds_ago) * 1000)):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-0000-0000-000000000000"
