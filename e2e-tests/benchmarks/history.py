"""Does a consumer cost the same with ten million old rows? ``python e2e-tests/benchmarks/history.py``

A PostgreSQL of its own; batches of new message ids are claimed, first in an empty table, then in one with the rows of
two weeks. Then the oldest day goes, while batches are claimed. Takes about five minutes and 3 GB.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from ftgo_local.platform import Platform
from ftgo_messaging.consumer.duplicates import Claim, claim_and_look
from ftgo_messaging.consumer.tables import dead_letters_table, processed_messages_table
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.runtime.connection import begin
from ftgo_messaging.upkeep import retention
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

CONSUMER = "bench"
DAYS = 15
ROUNDS = 3
# UUIDv7 as they would have come, evenly over the days, in the order of their time.
_FILL = text(
    "INSERT INTO processed_messages (consumer, message_id, processed_at, sources) SELECT :consumer, CAST("
    "lpad(to_hex(CAST(extract(epoch FROM born) * 1000 AS bigint)), 12, '0') || '7' || substr(md5(n::text), 1, 19)"
    " AS uuid), born, 'bench' FROM (SELECT n, "
    "now() - make_interval(secs => CAST(:ago AS float8) - n * CAST(:step AS float8)) AS born "
    "FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS g(n)) AS rows"
)
_CHUNK = 500_000


async def _batches_per_second(engine: AsyncEngine, seconds: float, size: int) -> float:
    """One worker: a batch of new ids, a transaction, and again."""
    began, batches = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        ids = [Claim("bench", new_id()) for _ in range(size)]
        async with begin(engine) as connection:
            new, _ = await claim_and_look(connection, CONSUMER, ids)
        assert len(new) == size
        batches += 1
    return batches / elapsed


async def _best(engine: AsyncEngine, seconds: float, size: int) -> float:
    await _batches_per_second(engine, seconds / 2, size)
    return max([await _batches_per_second(engine, seconds, size) for _ in range(ROUNDS)])


async def _fill(engine: AsyncEngine, rows: int) -> None:
    step = DAYS * 86400 / rows
    for first in range(0, rows, _CHUNK):
        last = min(rows, first + _CHUNK) - 1
        values = {"consumer": CONSUMER, "ago": DAYS * 86400, "step": step, "first": first, "last": last}
        async with engine.begin() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(_FILL, values)
        print(f"\r{last + 1:,} rows", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE processed_messages"))


async def _run(path: Path, rows: int, seconds: float, size: int) -> dict[str, float]:
    platform = Platform(path)
    try:
        await platform.start_postgres()
        dsn = (await platform.create_databases(["history"]))["history"]
        engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), pool_size=4)
        metadata = MetaData()
        processed_messages_table(metadata)
        dead_letters_table(metadata)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        before = await _best(engine, seconds, size)
        await _fill(engine, rows)
        after = await _best(engine, seconds, size)
        began = time.perf_counter()
        keep = timedelta(days=DAYS - 1)
        deleting = asyncio.create_task(retention.retain(engine, [retention.processed_messages(keep)]))
        meanwhile = await _batches_per_second(engine, seconds, size)
        deleted = await deleting
        took = time.perf_counter() - began
        await engine.dispose()
    finally:
        platform.stop()
    return {
        "rows": rows,
        "batch": size,
        "batches_per_s_empty": round(before, 1),
        "batches_per_s_full": round(after, 1),
        "ratio": round(after / before, 3),
        "batches_per_s_while_deleting": round(meanwhile, 1),
        "deleted": deleted,
        "deleted_per_s": round(deleted / took, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="ftgo-history-"))
    try:
        report = asyncio.run(_run(path, chosen.rows, chosen.seconds, chosen.batch))
    finally:
        shutil.rmtree(path, ignore_errors=True)
    for name, value in report.items():
        print(f"{name:<30} {value:>14,}")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    sys.exit(0 if report["ratio"] >= 0.9 else 1)


if __name__ == "__main__":
    main()
