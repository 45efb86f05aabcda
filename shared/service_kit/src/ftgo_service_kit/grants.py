"""What the roles of a service may do in its database. The owner grants it, after each migration.

The running service reads and writes rows: what is broken into it can neither drop a table nor plant a trigger. A relay
that tails the log has REPLICATION, a strong right, and so nothing else but the three tables that it works on.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class Granted:
    """Names of roles: of the running service, and of its tailing relay if there is one."""

    service: str | None
    relay: str | None


_CLOSED = """
DO $$ BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END $$
"""
_CONNECT = "DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO {role}', current_database()); END $$"
_SERVICE = (
    _CONNECT,
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    "REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {role}",
)
_RELAY = (
    _CONNECT,
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, DELETE ON outbox TO {role}",
    "GRANT SELECT, INSERT, UPDATE ON relay_lease, relay_position TO {role}",
)


async def grant(connection: AsyncConnection, granted: Granted) -> None:
    """May repeat. ``connection`` is the owner's. Raises what PostgreSQL does when there is no such role."""
    await connection.execute(text(_CLOSED))
    quote = connection.dialect.identifier_preparer.quote_identifier
    for role, statements in ((granted.service, _SERVICE), (granted.relay, _RELAY)):
        if role is not None:
            for statement in statements:
                await connection.execute(text(statement.format(role=quote(role))))
