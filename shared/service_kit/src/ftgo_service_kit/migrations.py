"""Runs the Alembic migrations that lie in a service's package, ``<package>/migrations/versions``."""

import asyncio
import sys
from importlib import resources
from typing import Any

import asyncpg
from alembic import context
from alembic.command import upgrade
from alembic.config import Config
from ftgo_messaging.runtime.errors import sqlstate
from ftgo_messaging.runtime.waiting import NotThere, reason, wait_for
from sqlalchemy import MetaData, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ftgo_service_kit.database import async_url
from ftgo_service_kit.grants import Granted, grant
from ftgo_service_kit.settings import ServiceSettings

_NO_RIGHT = "42501"
_LOCK = text("SELECT pg_advisory_lock(82081)")  # any number, but the same in every process


def migrate(package: str, settings: ServiceSettings) -> None:
    """What a service's ``migrate`` command does: bring the database to the newest version as the owner of its tables,
    and grant the running service and its tailing relay what they need. Exit code 1 with a sentence when the database
    refuses, or never comes."""
    owner = settings.migration_database_url
    granted = Granted(_role(settings.database_url), _role(settings.relay_database_url)) if owner else None
    variable = f"{settings.model_config.get('env_prefix', '')}{'MIGRATION_' if owner else ''}DATABASE_URL"
    try:
        run_migrations(package, owner or settings.database_url, granted, f"Is it up, and is {variable} right?")
    except NotThere as error:
        sys.exit(str(error))


def run_migrations(
    package: str, database_url: str, granted: Granted | None = None, cure: str = "Is it up, and is its URL right?"
) -> None:
    """Bring the database to the newest version. Waits for it (``ftgo_messaging.runtime.waiting``); raises NotThere,
    with the cure given, at the deadline, and at once when it refuses: a wrong password, a missing right.

    Several processes may call it together: they run one after the other, and the later ones find nothing to do.
    Each revision is one transaction. Not for several threads of one process."""
    config = Config()
    # In this format of files a percent sign has a meaning; below a folder with one in its name it is to have none.
    folder = str(resources.files(package).joinpath("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["database_url"] = database_url
    config.attributes["granted"] = granted
    config.attributes["cure"] = cure
    upgrade(config, "head")


def run_env(metadata: MetaData) -> None:
    """What a service's ``migrations/env.py`` calls."""
    attributes = context.config.attributes
    asyncio.run(_migrate(metadata, attributes["database_url"], attributes.get("granted"), attributes["cure"]))


async def _migrate(metadata: MetaData, database_url: str, granted: Granted | None, cure: str) -> None:
    engine = create_async_engine(async_url(database_url), poolclass=NullPool)
    what = f"PostgreSQL at {engine.url.host}:{engine.url.port or 5432}"
    connection = await wait_for(what, engine.connect, cure, refusals=(asyncpg.PostgresError, DBAPIError))
    try:
        # A lock of the session, given back with the connection; each migration commits for itself.
        await connection.execute(_LOCK)
        await connection.commit()
        await connection.run_sync(_run, metadata)
        await connection.commit()
        if granted:
            await grant(connection, granted)
            await connection.commit()
    except DBAPIError as error:
        if sqlstate(error) != _NO_RIGHT:
            raise
        raise NotThere(f"{what} refuses: {reason(error)}. {cure}") from error
    finally:
        await connection.close()


def _run(connection: Any, metadata: MetaData) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def _role(database_url: str | None) -> str | None:
    return make_url(database_url).username if database_url else None
