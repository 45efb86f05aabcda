"""Statements straight on the driver: SQLAlchemy's pool and ``text()``, asyncpg's ``fetch``.

SQLAlchemy's own execution costs two to three times the CPU of the same statement in asyncpg (greenlet switch, cursor
and result objects), and an order passes through some fifty statements. What is hot goes this way; everything else, and
all declarations, are ordinary SQLAlchemy.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.runtime.errors import TransientError

_dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


@cache
def _compiled(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    compiled = statement.compile(dialect=_dialect)
    return str(compiled), tuple(compiled.positiontup or ())


class Connection:
    """A pooled connection of the driver. Statements are constants: each text is compiled once and kept for ever."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Run one statement; returns its rows, which know index and column name. Raises asyncpg's own errors."""
        sql, names = _compiled(statement)
        values = parameters or {}
        rows: list[Any] = await self.driver.fetch(sql, *[values[name] for name in names])
        return rows


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """A connection of the engine's pool, outside of any transaction. One that the server has closed meanwhile is
    replaced; one that breaks on the way is thrown away, and the error becomes a TransientError."""
    async with engine.connect() as pooled:
        driver = (await pooled.get_raw_connection()).driver_connection
        while driver.is_closed():  # type: ignore[union-attr]
            await pooled.invalidate()
            driver = (await pooled.get_raw_connection()).driver_connection
        try:
            yield Connection(driver)
        except Exception as error:
            if driver.is_closed():  # type: ignore[union-attr]
                await pooled.invalidate()
                raise TransientError(f"the connection broke: {error}") from error
            raise


@asynccontextmanager
async def begin(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """A transaction: committed at the end of the block, rolled back if it raises."""
    async with connect(engine) as connection, connection.driver.transaction():
        yield connection
