"""Empty tables for a test, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@asynccontextmanager
async def new_tables(dsn: str, metadata: MetaData, **settings: Any) -> AsyncIterator[AsyncEngine]:
    """An engine, disposed of at the end, on a database with these tables made anew. ``dsn`` is a plain
    ``postgresql://`` one; ``settings`` are those of SQLAlchemy's ``create_async_engine``."""
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), **settings)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
            await connection.run_sync(metadata.create_all)
        yield engine
    finally:
        await engine.dispose()
