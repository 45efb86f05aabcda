"""Who may do what in the database of a service: three roles, each with no more than it needs.

======================  ==========================================================================================
``ftgo_order_owner``    owns the database; the migrations run with it, and with nothing else
``ftgo_order``          the running service: reads and writes rows, in its own database; no DDL, no TEMPORARY tables
``ftgo_order_relay``    only while the relay tails the transaction log: REPLICATION, and the relay's three tables
======================  ==========================================================================================

What the last two may do with tables is granted by the migrations, which make them. REPLICATION cannot be narrowed to
one database: with it a role may copy the whole server, and drop the slots of others. So no other role has it, and where
services tail, each should have a server of its own (the README of the library tells more).
"""

from collections.abc import Callable

import asyncpg

OWNER_CONNECTIONS = 3
SERVICE_CONNECTIONS = 45
"""Two processes that do everything, or api, worker and relay during a rollout; and some for commands by hand."""

RELAY_CONNECTIONS = 10
"""Two relays, and a third one during a rollout, each with its pool and its stream."""

NOTHING_ELSE = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"


async def create_service(
    admin: asyncpg.Connection, service: str, password: Callable[[str], str], *, tailing: bool
) -> bool:
    """The roles and the database; what is there already is made equal. ``admin``: a superuser's connection. Returns
    whether an earlier release has made this database, whose objects are then to be given to the owner."""
    name = f"ftgo_{service}"
    owner, relay = f"{name}_owner", f"{name}_relay"
    await _role(admin, owner, f"LOGIN NOREPLICATION CONNECTION LIMIT {OWNER_CONNECTIONS}", password(owner))
    await _role(admin, name, f"LOGIN NOREPLICATION CONNECTION LIMIT {SERVICE_CONNECTIONS}", password(name))
    if tailing:
        await _role(admin, relay, f"LOGIN REPLICATION CONNECTION LIMIT {RELAY_CONNECTIONS}", password(relay))
    elif await _exists(admin, relay):
        await admin.execute(f"ALTER ROLE {relay} NOLOGIN NOREPLICATION")
    found = await admin.fetchval("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", name)
    if found is None:
        await admin.execute(f"CREATE DATABASE {name} OWNER {owner}")
    await admin.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC")
    for role in (name, *([relay] if tailing else [])):
        await admin.execute(f"GRANT CONNECT ON DATABASE {name} TO {role}")
    return bool(found == name)


async def hand_over(admin: asyncpg.Connection, service: str) -> None:
    """Give everything that the service's role owns to the owner. ``admin`` is connected to that database."""
    await admin.execute(f"REASSIGN OWNED BY ftgo_{service} TO ftgo_{service}_owner")


async def _exists(admin: asyncpg.Connection, role: str) -> bool:
    return bool(await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role))


async def _role(admin: asyncpg.Connection, role: str, options: str, password: str) -> None:
    if not await _exists(admin, role):
        await admin.execute(f"CREATE ROLE {role}")
    # Passwords are made of letters, digits, - and _: nothing to quote.
    await admin.execute(f"ALTER ROLE {role} {options} {NOTHING_ELSE} PASSWORD '{password}'")
