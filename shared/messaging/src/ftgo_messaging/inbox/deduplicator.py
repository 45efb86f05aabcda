"""Duplicate detection by one insert for a whole batch. Never by catching an error: its text depends on the locale,
and a failed insert would abort the transaction."""

from collections.abc import Collection

from sqlalchemy import text

from ftgo_messaging.connection import Connection

# Sorted ids: two batches that share ids wait for each other in one order and cannot deadlock.
_INSERT = (
    "INSERT INTO processed_messages (consumer, message_id) "
    "SELECT CAST(:consumer AS text), id FROM unnest(CAST(:ids AS uuid[])) AS u(id) ORDER BY id "
    "ON CONFLICT DO NOTHING RETURNING message_id"
)
_CLAIM = text(_INSERT)
_CLAIM_AND_LOOK = text(
    f"WITH new AS ({_INSERT}) SELECT ARRAY(SELECT message_id FROM new), "  # noqa: S608 - constants
    "EXISTS (SELECT 1 FROM dead_letters WHERE consumer = CAST(:consumer AS text) AND parks_key AND resolved_at IS NULL)"
)


async def claim(connection: Connection, consumer: str, ids: Collection[str]) -> set[str]:
    """Record ``ids`` as handled by ``consumer`` in this transaction and return those that are new.

    A concurrent transaction with the same id makes this wait until it ends: then the id is new or it is not."""
    if not ids:
        return set()
    return {str(row[0]) for row in await connection.execute(_CLAIM, {"consumer": consumer, "ids": list(ids)})}


async def claim_and_look(connection: Connection, consumer: str, ids: Collection[str]) -> tuple[set[str], bool]:
    """``claim``, and whether keys of this consumer may be parked: one statement for both.

    False is certain only if all ids were new. The look is as old as the statement's begin, and a duplicate may mean
    that the statement has waited for a previous owner of the partition, who has parked the key meanwhile. (An owner
    for whom it did not wait had committed before, or comes later and finds the ids recorded.)"""
    rows = await connection.execute(_CLAIM_AND_LOOK, {"consumer": consumer, "ids": list(ids)})
    new = {str(message_id) for message_id in rows[0][0]}
    return new, bool(rows[0][1]) or len(new) < len(ids)
