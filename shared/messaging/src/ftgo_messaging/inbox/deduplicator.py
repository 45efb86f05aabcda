"""Duplicate detection by one insert for a whole batch. Never by catching an error: its text depends on the locale,
and a failed insert would abort the transaction."""

from collections.abc import Collection

from sqlalchemy import text

from ftgo_messaging.connection import Connection

# Sorted ids: two batches that share ids wait for each other in one order and cannot deadlock.
_CLAIM = text(
    "INSERT INTO processed_messages (consumer, message_id) "
    "SELECT CAST(:consumer AS text), id FROM unnest(CAST(:ids AS uuid[])) AS u(id) ORDER BY id "
    "ON CONFLICT DO NOTHING RETURNING message_id"
)


async def claim(connection: Connection, consumer: str, ids: Collection[str]) -> set[str]:
    """Record ``ids`` as handled by ``consumer`` in this transaction and return those that are new.

    A concurrent transaction with the same id makes this wait until it ends: then the id is new or it is not."""
    if not ids:
        return set()
    return {str(row[0]) for row in await connection.execute(_CLAIM, {"consumer": consumer, "ids": list(ids)})}
