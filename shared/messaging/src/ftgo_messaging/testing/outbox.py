"""An empty outbox for a test of relays, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.outbox.table import (
    OUTBOX_PUBLICATION,
    outbox_table,
    relay_lease_table,
    relay_position_table,
)
from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables

_METADATA = MetaData()
for _declare in (outbox_table, relay_lease_table, relay_position_table):
    _declare(_METADATA)

_SLOTS = "FROM pg_replication_slots WHERE database = current_database()"


@asynccontextmanager
async def outbox_database(dsn: str, pool_size: int = 10) -> AsyncIterator[AsyncEngine]:
    """The outbox with its leases and its publication, made anew. The slots that relays leave behind are dropped at the
    end. ``dsn`` is a plain ``postgresql://`` one."""
    async with new_tables(dsn, _METADATA, pool_size=pool_size) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("DROP PUBLICATION IF EXISTS outbox_inserts"))
            await connection.execute(text(OUTBOX_PUBLICATION))
        yield engine
        await _drop_slots(engine)


async def _drop_slots(engine: AsyncEngine) -> None:
    """Of this database. The server's processes of relays that are gone end a moment after them, and are waited for."""

    async def dropped() -> None:
        async with connect(engine) as connection:
            await connection.execute(text(f"SELECT pg_terminate_backend(active_pid) {_SLOTS} AND active"))
            await connection.execute(text(f"SELECT pg_drop_replication_slot(slot_name) {_SLOTS} AND NOT active"))
            if left := await connection.execute(text(f"SELECT slot_name {_SLOTS}")):
                raise AssertionError(f"slots that are still there: {left}")

    await eventually(dropped)
