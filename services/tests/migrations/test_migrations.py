"""Databases of earlier days come to be as a service declares its tables now, and keep their rows.

``at_the_first_revision``: dumps of databases that stopped there. ``as_once_declared``: of the time when the first
revision created whatever was declared that day. Both are history, and are never made again.
"""

import asyncio
import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import asyncpg
import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging import Aggregates
from ftgo_messaging.outbox.table import OUTBOX_PUBLICATION
from ftgo_service_kit.migrations import run_migrations
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

SERVICES = ("order", "consumer", "kitchen", "accounting")
DUMPS = sorted(Path(__file__).parent.glob("*/*.sql"))

CATALOG = {
    "columns": """
        SELECT table_name, column_name, udt_name, numeric_precision, numeric_scale, is_nullable, column_default,
            identity_generation
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
    "indexes": "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "storage": """
        SELECT relname, relkind::text, (SELECT array_agg(option ORDER BY option) FROM unnest(reloptions) AS option)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'v') ORDER BY 1""",
    "publications": """
        SELECT pubname, tablename, pubinsert, pubupdate, pubdelete, pubtruncate
        FROM pg_publication JOIN pg_publication_tables USING (pubname) ORDER BY 1, 2""",
}


class Database:
    """An empty one, of the superuser."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.dsn = postgres.dsn(name)

    async def run(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def rows(self, query: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        found = [dict(record) for record in await connection.fetch(query)]
        await connection.close()
        return found

    async def migrate(self, service: str) -> None:
        await asyncio.to_thread(run_migrations, f"ftgo_{service}", self.dsn)

    async def catalog(self) -> dict[str, list[dict[str, Any]]]:
        """Without what is Alembic's."""
        found = {name: await self.rows(query) for name, query in CATALOG.items()}
        return {name: [row for row in rows if "alembic_version" not in row.values()] for name, rows in found.items()}


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async for made in _made(postgres, "migrated"):
        yield made


@pytest.fixture
async def declared(postgres: Postgres) -> AsyncIterator[Database]:
    async for made in _made(postgres, "declared"):
        yield made


async def _made(postgres: Postgres, name: str) -> AsyncIterator[Database]:
    server = await asyncpg.connect(postgres.dsn())
    await server.execute(f"CREATE DATABASE {name}")
    yield Database(postgres, name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


def declarations(service: str) -> list[str]:
    metadata: MetaData = importlib.import_module(f"ftgo_{service}.adapters.tables").METADATA
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made = [CreateTable(table) for table in metadata.sorted_tables]
    made += [CreateIndex(index) for table in metadata.sorted_tables for index in table.indexes]
    return [str(statement.compile(dialect=dialect)) for statement in made] + [OUTBOX_PUBLICATION]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_new_database_is_what_the_service_declares(database: Database, declared: Database, service: str):
    await database.migrate(service)
    await declared.run(*declarations(service))
    assert await database.catalog() == await declared.catalog()


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: f"{dump.stem}-{dump.parent.name}")
async def test_an_old_database_becomes_the_same_and_keeps_its_rows(database: Database, declared: Database, dump: Path):
    await database.run(await asyncio.to_thread(dump.read_text))
    tables = sorted({row["table_name"] for row in (await database.catalog())["columns"]})
    before = {table: await database.rows(f"SELECT * FROM {table}") for table in tables}
    assert [table for table, rows in before.items() if not rows] in ([], ["relay_position"])

    await database.migrate(dump.stem)
    await declared.run(*declarations(dump.stem))
    assert await database.catalog() == await declared.catalog()
    for table, rows in before.items():
        after = await database.rows(f"SELECT * FROM {table}")
        assert [{name: row[name] for name in rows[0]} for row in after] == rows if rows else after == []


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: f"{dump.stem}-{dump.parent.name}")
async def test_the_service_reads_the_rows_of_an_old_database(database: Database, dump: Path):
    await database.run(await asyncio.to_thread(dump.read_text))
    await database.migrate(dump.stem)
    read = 0
    for aggregates in kept_by(dump.stem):
        for row in await database.rows(f"SELECT * FROM {aggregates.table.name}"):
            assert aggregates.key_of(aggregates.from_row(row)) == str(row[aggregates.key])
            read += 1
    assert read > 0


def kept_by(service: str) -> list[Aggregates[Any]]:
    """All aggregates that a service declares."""
    package = importlib.import_module(f"ftgo_{service}.adapters")
    modules = [importlib.import_module(found.name) for found in iter_modules(package.__path__, f"{package.__name__}.")]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Aggregates)]


@pytest.mark.parametrize("service", SERVICES)
def test_no_revision_reads_todays_declarations(service: str):
    """What a revision does must not change with the code beside it."""
    versions = Path(importlib.import_module(f"ftgo_{service}").__file__ or "").parent / "migrations" / "versions"
    imported = {
        name for revision in versions.glob("*.py") for name in re.findall(r"from (ftgo\S+)", revision.read_text())
    }
    assert imported == {"ftgo_messaging.upkeep.migrations"}
