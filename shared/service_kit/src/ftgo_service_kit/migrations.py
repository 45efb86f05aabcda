"""Runs the Alembic migrations that lie in a service's package, ``<package>/migrations/versions``."""

import asyncio
import time
from importlib import resources
from typing import Any

from alembic import context
from alembic.command import upgrade
from alembic.config import Config
from ftgo_messaging.errors import is_transient
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from ftgo_service_kit.database import async_url

_PATIENCE_SECONDS = 30
_LOCK = text("SELECT pg_advisory_lock(82081)")  # any number, but the same in every process


def run_migrations(package: str, database_url: str) -> None:
    """Bring the database to the newest version. Waits up to 30 s until it answers; wrong credentials fail at once.

    Several processes may call it together: they run one after the other, and the later ones find nothing to do.
    Each revision is one transaction. Not for several threads of one process."""
    config = Config()
    # In this format of files a percent sign has a meaning; below a folder with one in its name it is to have none.
    folder = str(resources.files(package).joinpath("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["database_url"] = database_url
    upgrade(config, "head")


def run_env(metadata: MetaData) -> None:
    """What a service's ``migrations/env.py`` calls."""
    asyncio.run(_migrate(metadata, context.config.attributes["database_url"]))


async def _migrate(metadata: MetaData, database_url: str) -> None:
    engine = create_async_engine(async_url(database_url), poolclass=NullPool)
    connection = await _connect(engine)
    try:
        # A lock of the session, given back with the connection; each migration commits for itself.
        await connection.execute(_LOCK)
        await connection.commit()
        await connection.run_sync(_run, metadata)
        await connection.commit()
    finally:
        await connection.close()


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    """The first connection that succeeds. "Refused" and "is starting up" are worth waiting for."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await engine.connect()
        except Exception as error:
            if not is_transient(error) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


def _run(connection: Any, metadata: MetaData) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
