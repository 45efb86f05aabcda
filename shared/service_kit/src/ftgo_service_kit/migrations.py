"""Runs the Alembic migrations that lie in a service's package, ``<package>/migrations/versions``."""

import asyncio
import time
from importlib import resources
from typing import Any

from alembic import context
from alembic.command import upgrade
from alembic.config import Config
from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ftgo_service_kit.database import async_url

_PATIENCE_SECONDS = 30


def run_migrations(package: str, database_url: str) -> None:
    """Bring the database to the newest version. Waits up to 30 s for it; two at once run one after the other."""
    config = Config()
    config.set_main_option("script_location", str(resources.files(package).joinpath("migrations")))
    config.attributes["database_url"] = database_url
    upgrade(config, "head")


def run_env(metadata: MetaData) -> None:
    """What a service's ``migrations/env.py`` calls."""
    asyncio.run(_migrate(metadata, context.config.attributes["database_url"]))


async def _migrate(metadata: MetaData, database_url: str) -> None:
    engine = create_async_engine(async_url(database_url), poolclass=NullPool)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            async with engine.connect() as connection:
                # Several instances may start at once; the lock goes with the connection.
                await connection.execute(text("SELECT pg_advisory_lock(82081)"))
                await connection.commit()
                await connection.run_sync(_run, metadata)
                await connection.commit()
            return
        except (OSError, DBAPIError) as error:
            refused = isinstance(error, OSError) or error.connection_invalidated
            if not refused or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)


def _run(connection: Any, metadata: MetaData) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
