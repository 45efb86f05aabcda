"""Dead letters: how they are written, listed, redriven and discarded.

``DEAD`` waits for somebody. ``REDRIVE`` is to be handled once more, by the consumer that it failed in; then it is
``REDRIVEN``, or ``DEAD`` again with one attempt more. ``DISCARDED`` is kept for the record. ``PARKED`` was not tried:
it waits behind a dead letter of its key.

The first unresolved letter of a parked key decides. Who resolves it sets the next one to ``REDRIVE`` in the same
transaction if it is parked, so the queue of a key is worked off in its order, and stops at the next dead one.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import text

from ftgo_messaging.consumer.letter import DeadLetter, State, from_row, storable, to_row
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import DomainError
from ftgo_messaging.transports.port import Record


class NoSuchDeadLetter(DomainError):
    slug = "no-such-dead-letter"
    status = 404


class NotResolvable(DomainError):
    """It is resolved already, or waits behind another letter of its key."""

    slug = "dead-letter-not-resolvable"
    status = 409


# -- writing ---------------------------------------------------------------------------------------------------------

# A record without an id is not recognised as handled when it comes again after a crash: by where it stood, it is. The
# body is compared, because a channel that was made anew numbers its records from 0 again. The lock: two owners of a
# lane may have it in hand at the same moment, and the later one looks when the earlier one has committed.
_LOCK_ORIGIN = text(
    "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:consumer AS text) || ' ' || CAST(:origin AS text), 0))"
)
_INSERT = text(
    "INSERT INTO dead_letters "
    "(consumer, message_id, channel, origin, key, headers, body, error, state, attempts, parks_key) "
    "SELECT :consumer, :message_id, CAST(:channel AS text), CAST(:origin AS text), "
    "CAST(:key AS bytea), CAST(:headers AS json), CAST(:body AS bytea), :error, :state, :attempts, :parks_key "
    "WHERE CAST(:identified AS boolean) OR NOT EXISTS ("
    "SELECT 1 FROM dead_letters WHERE origin = CAST(:origin AS text) AND consumer = CAST(:consumer AS text) "
    "AND body IS NOT DISTINCT FROM CAST(:body AS bytea))"
)

# Of a key that may have a megabyte only its hash is in the index (dead_letters_parked). The key itself is compared too.
_KEY = "sha256(key) = sha256(CAST(:key AS bytea)) AND key = CAST(:key AS bytea)"

# The last unresolved letter of each key is share-locked: whoever resolves it at this moment is waited for, and if that
# has emptied the queue, the key is free. Otherwise a message could be parked behind a letter that is no longer there.
_PARKED = text(
    "SELECT k.channel, k.key FROM unnest(CAST(:channels AS text[]), CAST(:keys AS bytea[])) AS k(channel, key), "
    "LATERAL (SELECT id FROM dead_letters AS d WHERE d.consumer = CAST(:consumer AS text) "
    "AND d.channel = k.channel AND sha256(d.key) = sha256(k.key) AND d.key = k.key "
    "AND d.parks_key AND d.resolved_at IS NULL ORDER BY d.id DESC LIMIT 1 FOR SHARE) AS last"
)

Key = tuple[str, bytes]
"""What is parked: a key of a channel."""


async def parked_keys(connection: Connection, consumer: str, keys: Collection[Key]) -> set[Key]:
    """Those of ``keys`` that are parked, and stay so until this transaction ends."""
    ordered = sorted(keys)
    parameters = {"consumer": consumer, "channels": [k[0] for k in ordered], "keys": [k[1] for k in ordered]}
    return {(row[0], row[1]) for row in await connection.execute(_PARKED, parameters)}


async def write(
    connection: Connection,
    consumer: str,
    received: Record,
    error: str,
    *,
    parks_key: bool,
    state: State = State.DEAD,
    identified: bool,
) -> None:
    """Keep a record. ``identified``: its id is claimed in this transaction, so it cannot be here already."""
    parameters = {
        **to_row(received, error),
        "consumer": consumer,
        "state": state.value,
        "attempts": 0 if state is State.PARKED else 1,
        "parks_key": parks_key and received.key is not None,
        "identified": identified,
    }
    if not identified:
        await connection.execute(_LOCK_ORIGIN, parameters)
    await connection.execute(_INSERT, parameters)


# -- reading ---------------------------------------------------------------------------------------------------------

_SHORT = (
    "id, consumer, message_id, channel, origin, partition, position, "
    "key, error, failed_at, state, attempts, parks_key, resolved_at"
)
_COLUMNS = f"{_SHORT}, CAST(headers AS text) AS headers, body"
_GET = text(f"SELECT {_COLUMNS} FROM dead_letters WHERE id = :id")  # noqa: S608 - constants
_TAKE = text(f"SELECT {_COLUMNS} FROM dead_letters WHERE id = :id FOR UPDATE")  # noqa: S608
_LIST = text(
    f"SELECT {_SHORT}, NULL AS body, "  # noqa: S608
    "CASE WHEN octet_length(CAST(headers AS text)) <= 20000 THEN CAST(headers AS text) ELSE '[]' END AS headers "
    "FROM dead_letters WHERE id > :after AND state = ANY(CAST(:states AS text[])) ORDER BY id LIMIT :limit"
)
UNRESOLVED = (State.DEAD, State.PARKED, State.REDRIVE)


async def list_letters(
    connection: Connection, *, after: int = 0, limit: int = 50, states: Collection[State] = UNRESOLVED
) -> list[DeadLetter]:
    """Letters in the order in which they came, from behind the id ``after``. Without their bodies, and without headers
    of more than 20 kB: a hundred letters may have hundreds of megabytes."""
    parameters = {"after": after, "limit": limit, "states": [s.value for s in states]}
    return [from_row(row) for row in await connection.execute(_LIST, parameters)]


async def get_letter(connection: Connection, letter_id: int) -> DeadLetter:
    """Raises NoSuchDeadLetter."""
    return _one(await connection.execute(_GET, {"id": letter_id}), letter_id)


def _one(rows: Sequence[Any], letter_id: int) -> DeadLetter:
    if not rows:
        raise NoSuchDeadLetter(f"There is no dead letter {letter_id}.")
    return from_row(rows[0])


# -- resolving -------------------------------------------------------------------------------------------------------

_EARLIER = text(
    f"SELECT min(id) FROM dead_letters WHERE consumer = :consumer AND channel = :channel AND {_KEY} "  # noqa: S608
    "AND parks_key AND resolved_at IS NULL AND id < :id"
)
_SET = text("UPDATE dead_letters SET state = :state WHERE id = :id")
_RESOLVE = text("UPDATE dead_letters SET state = :state, resolved_at = now() WHERE id = :id")
_NEXT = text(
    "UPDATE dead_letters SET state = 'REDRIVE' WHERE state = 'PARKED' AND id = ("  # noqa: S608
    f"SELECT min(id) FROM dead_letters WHERE consumer = :consumer AND channel = :channel AND {_KEY} "
    "AND parks_key AND resolved_at IS NULL)"
)
_FAILED = text(
    "UPDATE dead_letters SET state = 'DEAD', attempts = attempts + 1, error = :error, failed_at = now() WHERE id = :id"
)


def _place(letter: DeadLetter) -> dict[str, Any]:
    return {"consumer": letter.consumer, "channel": letter.channel, "key": letter.key}


async def take(connection: Connection, letter_id: int) -> DeadLetter:
    """Lock a letter until the transaction ends. Raises NoSuchDeadLetter."""
    return _one(await connection.execute(_TAKE, {"id": letter_id}), letter_id)


async def order_redrive(connection: Connection, letter_id: int) -> DeadLetter:
    """Have a dead letter handled once more by its consumer; what is parked behind it follows. Ordered twice, it is
    still handled once. Raises NoSuchDeadLetter, or NotResolvable for one that is not dead or not the first of its key.
    """
    letter = await take(connection, letter_id)
    if letter.state is State.REDRIVE:
        return letter
    if letter.state is not State.DEAD:
        raise NotResolvable(f"Dead letter {letter_id} is {letter.state}: only a DEAD one can be redriven.")
    if letter.parks_key:
        earlier = (await connection.execute(_EARLIER, {**_place(letter), "id": letter_id}))[0][0]
        if earlier is not None:
            raise NotResolvable(f"Dead letter {letter_id} waits behind {earlier} of the same key: resolve that first.")
    await connection.execute(_SET, {"id": letter_id, "state": State.REDRIVE.value})
    return await get_letter(connection, letter_id)


async def discard(connection: Connection, letter_id: int) -> DeadLetter:
    """Give a letter up; its row stays. What is parked behind it follows. Raises NoSuchDeadLetter or NotResolvable."""
    letter = await take(connection, letter_id)
    if letter.state is State.DISCARDED:
        return letter
    if letter.state not in UNRESOLVED:
        raise NotResolvable(f"Dead letter {letter_id} is {letter.state}: it is handled, there is nothing to discard.")
    await resolve(connection, letter, State.DISCARDED)
    return await get_letter(connection, letter_id)


async def resolve(connection: Connection, letter: DeadLetter, state: State) -> None:
    """End a letter that this transaction has locked, and let the next of its key follow."""
    await connection.execute(_RESOLVE, {"id": letter.id, "state": state.value})
    if letter.parks_key:
        # A statement of its own: it sees what was parked while this transaction waited for the lock.
        await connection.execute(_NEXT, _place(letter))


async def failed_again(connection: Connection, letter: DeadLetter, error: str) -> None:
    """A redrive has failed: dead once more, and its key stays parked."""
    await connection.execute(_FAILED, {"id": letter.id, "error": storable(error)})
