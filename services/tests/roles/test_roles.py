"""What each role can do to its database, to the others and to the whole server: asserted both ways, on a real one.

What PostgreSQL does not let us narrow is asserted as well: these tests fail on the day on which it does.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from ftgo_local import roles
from ftgo_local.postgres import Postgres
from ftgo_messaging import Message, new_id
from ftgo_messaging.messages import message as m
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.runtime.connection import begin
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transaction import rows
from ftgo_messaging.transports.port import Sent
from ftgo_service_kit.database import Pools, most_connections
from ftgo_service_kit.migrations import migrate, run_migrations
from ftgo_service_kit.relays import make_relay
from ftgo_service_kit.settings import ServiceSettings

SERVICES = ("consumer", "kitchen", "accounting", "order")
SLOT = "somebodys_slot"
DENIED = asyncpg.InsufficientPrivilegeError
NOT_LET_IN = asyncpg.InvalidAuthorizationSpecificationError


def settings_of(postgres: Postgres, service: str, **more: Any) -> ServiceSettings:
    settings: ServiceSettings = getattr(
        importlib.import_module(f"ftgo_{service}.settings"), f"{service.title()}Settings"
    )(
        database_url=postgres.service_dsn(service),
        migration_database_url=postgres.owner_dsn(service),
        FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1",
        **more,
    )
    return settings


async def prepared(postgres: Postgres, *services: str, tailing: bool = False) -> None:
    await postgres.create_services(services, tailing=tailing)
    for service in services:
        relay = {"relay_database_url": postgres.relay_dsn(service)} if tailing else {}
        await asyncio.to_thread(migrate, f"ftgo_{service}", settings_of(postgres, service, **relay))


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def tailed(postgres: Postgres) -> AsyncIterator[str]:
    """The service kitchen, whose relay tails the log; a slot of somebody else's, on another database. Yields the
    relay's DSN."""
    await prepared(postgres, "kitchen", "order", tailing=True)
    async with connected(postgres.dsn("ftgo_order")) as admin:
        await admin.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", SLOT)
        yield postgres.relay_dsn("kitchen")
        for slot in await admin.fetch("SELECT slot_name FROM pg_replication_slots WHERE NOT active"):
            await admin.execute("SELECT pg_drop_replication_slot($1)", slot[0])
    await prepared(postgres, "kitchen", "order")


async def replicate(dsn: str, command: str, *, physical: bool = False) -> str:
    """Run a command of the replication protocol; returns its tag."""
    kind = {"replication": "true" if physical else "database"}
    connection = await asyncpg.connect(dsn, server_settings=kind)
    try:
        return str(await connection.execute(command))
    finally:
        await connection.close()


# -- the running service ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_reads_and_writes_rows_and_nothing_else(postgres: Postgres, service: str) -> None:
    await prepared(postgres, service)
    async with connected(postgres.service_dsn(service)) as connection:
        tables = [
            row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        for table in set(tables) - {"alembic_version"}:
            rights = await connection.fetchval(
                "SELECT has_table_privilege($1, 'SELECT, INSERT, UPDATE, DELETE')", table
            )
            assert rights, table
        for statement in (
            "CREATE TABLE mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE PUBLICATION mine FOR TABLE outbox",
            "CREATE ROLE mine",
            "CREATE DATABASE mine",
            "ALTER TABLE outbox ADD COLUMN mine int",
            "CREATE INDEX mine ON outbox (key)",
            "DROP TABLE outbox",
            "TRUNCATE outbox",
            "DROP PUBLICATION outbox_inserts",
            "UPDATE alembic_version SET version_num = 'mine'",
            f"SET ROLE ftgo_{service}_owner",
            "COPY outbox TO PROGRAM 'true'",
            "SELECT pg_read_file('postgresql.conf')",
            f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
            f"SELECT pg_create_physical_replication_slot('{SLOT}')",
        ):
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await connection.execute(statement)
            assert refusal.value.sqlstate == "42501", (statement, refusal.value)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_reaches_its_own_database_and_no_log(postgres: Postgres, service: str) -> None:
    await prepared(postgres, *SERVICES)
    for role in (f"ftgo_{service}", f"ftgo_{service}_owner"):
        own = postgres.dsn(f"ftgo_{service}", role)
        others = [f"ftgo_{other}" for other in SERVICES if other != service]
        for database in (*others, "postgres", "template1"):
            with pytest.raises(DENIED, match="CONNECT"):
                await asyncpg.connect(postgres.dsn(database, role))
        with pytest.raises(DENIED, match="permission denied to start WAL sender"):
            await replicate(own, "BASE_BACKUP")
        with pytest.raises(NOT_LET_IN, match="replication connection"):
            await replicate(own, "BASE_BACKUP", physical=True)
        async with connected(own) as connection:
            found = await connection.fetchval(
                "SELECT count(*) FROM pg_roles WHERE rolreplication AND rolname <> 'postgres'"
            )
            drop = "SELECT pg_drop_replication_slot('no_such_slot')"
            with pytest.raises(DENIED):
                await connection.execute(drop)
        assert found == await _others_with_replication(postgres)


async def _others_with_replication(postgres: Postgres) -> int:
    """Roles of the library's tests, which do everything with one."""
    async with connected(postgres.dsn()) as admin:
        ours = [f"ftgo_{service}{suffix}" for service in SERVICES for suffix in ("", "_owner", "_relay")]
        sql = "SELECT count(*) FROM pg_roles WHERE rolreplication AND rolname <> 'postgres' AND rolname <> ALL($1)"
        return int(await admin.fetchval(sql, ours))


async def test_no_role_takes_all_connections(postgres: Postgres) -> None:
    await prepared(postgres, "kitchen")
    own = [await asyncpg.connect(postgres.owner_dsn("kitchen")) for _ in range(roles.OWNER_CONNECTIONS)]
    try:
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(postgres.owner_dsn("kitchen"))
    finally:
        for connection in own:
            await connection.close()
    async with connected(postgres.dsn()) as admin:
        limit = int(await admin.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'ftgo_kitchen'"))
        most = int(await admin.fetchval("SHOW max_connections"))
        reserved = int(await admin.fetchval("SHOW superuser_reserved_connections"))
    assert 2 * most_connections(ServiceSettings.model_fields["pool_size"].default) <= limit == roles.SERVICE_CONNECTIONS
    each = roles.SERVICE_CONNECTIONS + roles.OWNER_CONNECTIONS + roles.RELAY_CONNECTIONS
    assert each * len(SERVICES) + reserved <= most


# -- the relay that tails the log -------------------------------------------------------------------------------------


class Recorder:
    def __init__(self) -> None:
        self.published: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        self.published += messages
        return [Sent.CONFIRMED] * len(messages)


async def test_a_tailing_relay_needs_no_more_than_its_role_may(postgres: Postgres, tailed: str) -> None:
    settings = settings_of(postgres, "kitchen", relay_database_url=tailed, FTGO_RELAY="log-tailing")
    pools, broker = Pools("kitchen", settings), Recorder()
    relay = make_relay("kitchen", settings, pools.relay, broker, WakeUp())
    assert isinstance(relay, LogTailing)

    async def tails() -> None:
        await relay.run_once()
        assert not relay.sweeping

    try:
        await eventually(tails)
        message = Message(new_id(), "c", "k", {m.ID: new_id(), m.TYPE: "t"}, b"{}")
        async with begin(pools.writes) as connection:
            await rows.write(connection, [rows.Write(writer.OUTBOX, writer.rows_of([message]))])
        while await relay.run_once():
            pass
        assert message.id in {published.id for published in broker.published}
        assert not relay.sweeping
    finally:
        await relay.release()
        await pools.close()


async def test_a_tailing_relay_reaches_three_tables_of_its_own_database(postgres: Postgres, tailed: str) -> None:
    async with connected(tailed) as connection:
        reads = (
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
            "AND has_table_privilege(oid, 'SELECT')"
        )
        assert {row[0] for row in await connection.fetch(reads)} == {"outbox", "relay_lease", "relay_position"}
        for statement in ("INSERT INTO outbox DEFAULT VALUES", "CREATE TABLE mine (id int)", "TRUNCATE outbox"):
            with pytest.raises(DENIED):
                await connection.execute(statement)
    with pytest.raises(DENIED, match="CONNECT"):
        await asyncpg.connect(postgres.dsn("ftgo_order", "ftgo_kitchen_relay"))
    with pytest.raises(DENIED, match="permission denied for database"):
        await replicate(postgres.dsn("ftgo_order", "ftgo_kitchen_relay"), "IDENTIFY_SYSTEM")
    with pytest.raises(NOT_LET_IN, match="replication connection"):
        await replicate(tailed, "BASE_BACKUP", physical=True)


async def test_what_replication_cannot_be_kept_from(postgres: Postgres, tailed: str) -> None:
    """Therefore a tailing service has a server of its own, where that matters (docs of the library, "REPLICATION")."""
    async with connected(tailed) as connection:
        await connection.execute("SELECT pg_create_logical_replication_slot('one_more', 'pgoutput')")
        await connection.execute("SELECT pg_drop_replication_slot($1)", SLOT)  # of another database
    assert await replicate(tailed, "BASE_BACKUP (CHECKPOINT 'fast')") == "BASE_BACKUP"  # all databases, all passwords


async def test_polling_again_takes_the_right_away(postgres: Postgres, tailed: str) -> None:
    await prepared(postgres, "kitchen")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="not permitted to log in"):
        await asyncpg.connect(tailed)
    async with connected(postgres.dsn()) as admin:
        assert not await admin.fetchval("SELECT rolreplication FROM pg_roles WHERE rolname = 'ftgo_kitchen_relay'")


# -- what an earlier release has made ---------------------------------------------------------------------------------


async def test_a_database_of_one_role_is_divided_and_keeps_its_rows(postgres: Postgres) -> None:
    async with connected(postgres.dsn()) as admin:
        await admin.execute("DROP DATABASE IF EXISTS ftgo_consumer WITH (FORCE)")
    dsn = (await postgres.create_service_databases(["consumer"]))["consumer"]
    async with connected(postgres.dsn()) as admin:
        await admin.execute("ALTER ROLE ftgo_consumer REPLICATION CONNECTION LIMIT -1")
    await asyncio.to_thread(run_migrations, "ftgo_consumer", dsn)
    async with connected(dsn) as connection:
        await connection.execute("INSERT INTO relay_lease (shard, owner, epoch) VALUES (7, 'kept', 1)")
    await prepared(postgres, "consumer")
    async with connected(dsn) as connection:
        assert await connection.fetchval("SELECT owner FROM relay_lease WHERE shard = 7") == "kept"
        assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relowner = 'ftgo_consumer'::regrole") == 0
        with pytest.raises(DENIED):
            await connection.execute("DROP TABLE relay_lease")
    with pytest.raises(DENIED, match="permission denied to start WAL sender"):
        await replicate(dsn, "IDENTIFY_SYSTEM")
