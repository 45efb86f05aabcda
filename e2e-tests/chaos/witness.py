"""Independent witnesses: what the databases committed, what was published, and what is left at the end.

None of it goes through a service, and nothing here is read by one.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg
from decoding import Transaction, transactions
from journal import Journal
from wires import Wire

_SLOTS = "ftgo_chaos_witness_"
_PUBLICATION = "ftgo_chaos_witness"
_AT_MOST = 2000  # changes a reading; whole transactions are read, so it may be more
# Long and of no use to the checker.
_LEFT_OUT = {"saga_instances": ("history",), "orders": ("delivery_address", "fingerprint")}
_TROUBLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class DatabaseWitness:
    """Follows the transaction log of one service's database by a replication slot of its own, as superuser.

    Peeks, writes, then advances: a crash of anything in between repeats transactions, which are recognised by their
    position, and never loses one."""

    def __init__(self, service: str, dsn: str, directory: Path) -> None:
        self.service = service
        self._dsn = dsn
        self._slot = f"{_SLOTS}{service}"
        self._journal = Journal(directory / f"commits-{service}.jsonl")
        self._seen = 0
        self.commits = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create publication and slot. What is committed from now on is seen."""
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            await connection.execute(f"CREATE PUBLICATION {_PUBLICATION} FOR ALL TABLES")
            await connection.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", self._slot)
        finally:
            await connection.close()
        self._task = asyncio.create_task(self._follow(), name=f"witness-{self.service}")

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(*_TROUBLE):
                connection = await asyncpg.connect(self._dsn, timeout=10, command_timeout=60)
                try:
                    while True:
                        if await self._read(connection) < _AT_MOST:
                            await asyncio.sleep(0.5)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.5)  # the database is away

    async def _read(self, connection: Any) -> int:
        before = await connection.fetchval("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        rows = await connection.fetch(
            "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, $2, "
            "'proto_version', '1', 'publication_names', $3)",
            self._slot,
            _AT_MOST,
            _PUBLICATION,
        )
        end = 0
        for transaction in transactions(row[0] for row in rows):
            end = transaction.end
            if end > self._seen:  # else a crash has taken the slot back
                self._keep(transaction)
                self._seen = end
        if not rows:
            end = int(before)  # nothing for us up to there: let the server recycle its log
        if end:
            lsn = f"{end >> 32:X}/{end & 0xFFFFFFFF:X}"
            await connection.execute(
                "SELECT pg_replication_slot_advance($1, CAST($2 AS text)::pg_lsn)", self._slot, lsn
            )
        return len(rows)

    def _keep(self, transaction: Transaction) -> None:
        self.commits += 1
        changes = []
        for change in transaction.changes:
            for column in _LEFT_OUT.get(change.table, ()):
                change.row.pop(column, None)
            changes.append([change.operation, change.table, change.row])
        self._journal.write(lsn=transaction.end, xid=transaction.xid, at=transaction.committed_at, changes=changes)

    async def finish(self) -> None:
        """Read what is still in the log, then end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        deadline = time.monotonic() + 30
        while True:
            connection = await asyncpg.connect(self._dsn, timeout=10, command_timeout=60)
            try:
                while await self._read(connection):
                    pass
                break
            except asyncpg.ObjectInUseError:  # the server has not noticed yet that the session before is gone
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            finally:
                await connection.close()
        self._journal.close()


async def read_topics(wire: Wire, topics: Iterable[str], directory: Path) -> int:
    """Every record that was published, as far as the broker lets a stranger read it. Returns how many."""
    number = 0
    with Journal(directory / "topics.jsonl") as journal:
        async for raw in wire.everything(topics):
            number += 1
            journal.write(
                topic=raw.topic,
                partition=raw.lane,
                offset=raw.place,
                key=raw.key,
                headers=raw.headers,
                body=None if raw.body is None else raw.body.decode(errors="backslashreplace"),
            )
    return number


async def read_tables(service: str, dsn: str, directory: Path) -> None:
    """Every row of every table of a database, after everything has come to rest."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=120)
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        with Journal(directory / f"tables-{service}.jsonl") as journal:
            for (name,) in names:
                for (row,) in await connection.fetch(f"SELECT to_jsonb(t) FROM {name} AS t"):  # noqa: S608 - catalogue
                    content = json.loads(row)
                    for column in _LEFT_OUT.get(name, ()):
                        content.pop(column, None)
                    journal.write(table=name, row=content)
    finally:
        await connection.close()


# -- rest ----------------------------------------------------------------------------------------------------------


async def unrest(dsns: dict[str, str], wire: Wire) -> list[str]:
    """What is not at rest yet, in words: unfinished sagas, outbox rows, lag. Empty when all is."""
    found = await unrest_of_databases(dsns)
    return found + [f"lag of {group} {count}" for group, count in (await lags(wire)).items() if count]


async def unrest_of_databases(dsns: dict[str, str]) -> list[str]:
    """Without what is under way at the broker."""
    found: list[str] = []
    for service, dsn in dsns.items():
        try:
            connection = await asyncpg.connect(dsn, timeout=5, command_timeout=20)
        except _TROUBLE as error:
            return [f"{service}: database {type(error).__name__}"]
        try:
            if rows := await connection.fetchval("SELECT count(*) FROM outbox"):
                found.append(f"{service}: outbox {rows}")
            if service == "order":
                running = "SELECT count(*) FROM saga_instances WHERE NOT finished"
                if sagas := await connection.fetchval(running):
                    found.append(f"sagas {sagas}")
        except _TROUBLE as error:
            found.append(f"{service}: {type(error).__name__}")
        finally:
            connection.terminate()
    return found


async def lags(wire: Wire) -> dict[str, int]:
    """How many records each consumer is behind; -1 when the broker does not answer."""
    try:
        async with asyncio.timeout(20):
            return await wire.lags()
    except Exception:
        return {"the broker does not answer": -1}


async def sessions_and_slots(dsn: str) -> dict[str, Any]:
    """What must not be left over in the server: sessions that sit in a transaction, slots that retain log."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        idle = await connection.fetch(
            "SELECT pid, application_name AS name, extract(epoch FROM now() - state_change)::float AS seconds "
            "FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
        )
        slots = await connection.fetch(
            "SELECT slot_name AS name, active, wal_status, "
            "pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS retained "
            "FROM pg_replication_slots WHERE NOT starts_with(slot_name, $1)",
            _SLOTS,
        )
        return {"idle_in_transaction": [dict(r) for r in idle], "slots": [dict(r) for r in slots]}
    finally:
        await connection.close()
