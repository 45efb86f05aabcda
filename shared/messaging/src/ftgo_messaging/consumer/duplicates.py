"""Duplicate detection by one insert for a whole batch. Never by catching an error: its text depends on the locale,
and a failed insert would abort the transaction.

An id counts together with its source: junk of a stranger under the id of a waiting command must not make that a
duplicate. One row for each id remembers its sources, so that a release that knows only ids lives beside this one.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import text

from ftgo_messaging.runtime.connection import Connection


@dataclass(frozen=True, slots=True)
class Claim:
    """What makes a message this one and no other. ``source`` holds no blank."""

    source: str
    id: str


# Sorted ids: two batches that share ids wait for each other in one order and cannot deadlock. Of an id that is there
# already the row is locked, as it is now, and returned only if its source is a new one.
_INSERT = (
    "INSERT INTO processed_messages AS known (consumer, message_id, sources) "
    "SELECT CAST(:consumer AS text), id, source "
    "FROM unnest(CAST(:ids AS uuid[]), CAST(:sources AS text[])) AS u(id, source) ORDER BY id "
    "ON CONFLICT (consumer, message_id) DO UPDATE SET sources = known.sources || ' ' || excluded.sources "
    "WHERE known.sources <> '' AND NOT excluded.sources = ANY(string_to_array(known.sources, ' ')) "
    "RETURNING message_id"
)
_CLAIM = text(_INSERT)
_CLAIM_AND_LOOK = text(
    f"WITH new AS ({_INSERT}) SELECT ARRAY(SELECT message_id FROM new), "  # noqa: S608 - constants
    "EXISTS (SELECT 1 FROM dead_letters WHERE consumer = CAST(:consumer AS text) AND parks_key AND resolved_at IS NULL)"
)


async def claim(connection: Connection, consumer: str, claims: Collection[Claim]) -> set[Claim]:
    """Record ``claims`` as handled by ``consumer`` in this transaction and return those that are new.

    A concurrent transaction with the same id makes this wait until it ends: then the id is new or it is not."""
    if not claims:
        return set()
    new: set[Claim] = set()
    for sources in _one_source_each(claims):
        rows = await connection.execute(_CLAIM, _parameters(consumer, sources))
        new |= {Claim(sources[str(row[0])], str(row[0])) for row in rows}
    return new


async def claim_and_look(connection: Connection, consumer: str, claims: Collection[Claim]) -> tuple[set[Claim], bool]:
    """``claim``, and whether keys of this consumer may be parked: one statement for both.

    False is certain only if all ids were new. The look is as old as the statement's begin, and a duplicate may mean
    that the statement has waited for a previous owner of the lane, who has parked the key meanwhile. (An owner
    for whom it did not wait had committed before, or comes later and finds the ids recorded.)"""
    new: set[Claim] = set()
    look = False
    for sources in _one_source_each(claims):
        row = (await connection.execute(_CLAIM_AND_LOOK, _parameters(consumer, sources)))[0]
        new |= {Claim(sources[str(message_id)], str(message_id)) for message_id in row[0]}
        look = look or bool(row[1])
    return new, look or len(new) < len(claims)


def _parameters(consumer: str, sources: dict[str, str]) -> dict[str, object]:
    return {"consumer": consumer, "ids": list(sources), "sources": list(sources.values())}


def _one_source_each(claims: Collection[Claim]) -> Iterator[dict[str, str]]:
    """By id, for one statement each: no statement may touch a row twice. One, unless two sources share an id; and one
    for no claims at all, which still asks whether keys are parked."""
    left = list(claims)
    while True:
        now: dict[str, str] = {}
        later = [c for c in left if now.setdefault(c.id, c.source) != c.source]
        yield now
        if not later:
            return
        left = later
