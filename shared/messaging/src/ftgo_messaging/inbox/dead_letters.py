"""Dead letters: how they are written, listed, redriven and discarded.

``DEAD`` waits for somebody. ``REDRIVE`` is to be handled once more, by the consumer that it failed in; then it is
``REDRIVEN``, or ``DEAD`` again with one attempt more. ``DISCARDED`` is kept for the record. ``PARKED`` was not tried:
it waits behind a dead letter of its key.

The first unresolved letter of a parked key decides. Who resolves it sets the next one to ``REDRIVE`` in the same
transaction if it is parked, so the queue of a key is worked off in its order, and stops at the next dead one.
"""

from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import text

from ftgo_messaging import message as m
from ftgo_messaging.connection import Connection
from ftgo_messaging.errors import DomainError


class State(StrEnum):
    DEAD = "DEAD"
    PARKED = "PARKED"
    REDRIVE = "REDRIVE"
    REDRIVEN = "REDRIVEN"
    DISCARDED = "DISCARDED"


class Poison(StrEnum):
    """What a message that cannot be handled means for the later ones of its key."""

    PARK_KEY = "PARK_KEY"
    GO_ON = "GO_ON"


@dataclass(frozen=True, slots=True)
class Received:
    """A record as it came from the broker, nothing decoded yet."""

    channel: str
    partition: int
    position: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Key, headers and body are the bytes that came."""

    id: int
    consumer: str
    message_id: str | None
    channel: str
    partition: int
    position: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    body: bytes | None
    error: str
    failed_at: datetime
    state: State
    attempts: int
    parks_key: bool
    resolved_at: datetime | None

    @property
    def type(self) -> str | None:
        return header(self.received, m.TYPE)

    @property
    def received(self) -> Received:
        """The record as it came."""
        return Received(self.channel, self.partition, self.position, self.key, self.headers, self.body)


def header(received: Received, name: str) -> str | None:
    """A header as readable text; what is not UTF-8 of it is replaced."""
    value = next((v for n, v in received.headers if n == name), None)
    return None if value is None else value.decode(errors="replace")


class NoSuchDeadLetter(DomainError):
    slug = "no-such-dead-letter"
    status = 404


class NotResolvable(DomainError):
    """It is resolved already, or waits behind another letter of its key."""

    slug = "dead-letter-not-resolvable"
    status = 409


def document(letter: DeadLetter) -> dict[str, Any]:
    """The letter for people and programs: text where it is text, the exact body in base64 where it is not."""
    body = letter.body
    try:
        bodies = {"body": None if body is None else body.decode()}
    except UnicodeDecodeError:
        bodies = {"bodyBase64": b64encode(body or b"").decode()}
    return {
        "id": letter.id,
        "state": letter.state.value,
        "attempts": letter.attempts,
        "consumer": letter.consumer,
        "channel": letter.channel,
        "partition": letter.partition,
        "offset": letter.position,
        "key": _readable(letter.key),
        "messageId": letter.message_id,
        "type": letter.type,
        "failedAt": letter.failed_at.isoformat(),
        "parksKey": letter.parks_key,
        "resolvedAt": None if letter.resolved_at is None else letter.resolved_at.isoformat(),
        "headers": [[name, _readable(value)] for name, value in letter.headers],
        **bodies,
        "error": letter.error,
    }


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


# -- writing ---------------------------------------------------------------------------------------------------------

# A record without an id is not recognised as handled when it comes again after a crash: by where it stood, it is. The
# body is compared, because a topic that was created anew numbers its records from 0 again.
_INSERT = text(
    "INSERT INTO dead_letters "
    "(consumer, message_id, channel, partition, position, key, headers, body, error, state, attempts, parks_key) "
    "SELECT :consumer, :message_id, CAST(:channel AS text), CAST(:partition AS integer), CAST(:position AS bigint), "
    "CAST(:key AS bytea), CAST(:headers AS json), CAST(:body AS bytea), :error, :state, :attempts, :parks_key "
    "WHERE CAST(:identified AS boolean) OR NOT EXISTS ("
    "SELECT 1 FROM dead_letters WHERE channel = CAST(:channel AS text) AND partition = CAST(:partition AS integer) "
    "AND position = CAST(:position AS bigint) AND consumer = CAST(:consumer AS text) "
    "AND body IS NOT DISTINCT FROM CAST(:body AS bytea))"
)

# The last unresolved letter of each key is share-locked: whoever resolves it at this moment is waited for, and if that
# has emptied the queue, the key is free. Otherwise a message could be parked behind a letter that is no longer there.
_PARKED = text(
    "SELECT k.channel, k.key FROM unnest(CAST(:channels AS text[]), CAST(:keys AS bytea[])) AS k(channel, key), "
    "LATERAL (SELECT id FROM dead_letters AS d WHERE d.consumer = CAST(:consumer AS text) "
    "AND d.channel = k.channel AND d.key = k.key AND d.parks_key AND d.resolved_at IS NULL "
    "ORDER BY d.id DESC LIMIT 1 FOR SHARE) AS last"
)

Key = tuple[str, bytes]


def key_of(received: Received) -> Key | None:
    """What is parked: a key of a channel. A record without a key has no order, so nothing waits for it."""
    return None if received.key is None else (received.channel, received.key)


async def parked_keys(connection: Connection, consumer: str, keys: Collection[Key]) -> set[Key]:
    """Those of ``keys`` that are parked, and stay so until this transaction ends."""
    ordered = sorted(keys)
    parameters = {"consumer": consumer, "channels": [k[0] for k in ordered], "keys": [k[1] for k in ordered]}
    return {(row[0], row[1]) for row in await connection.execute(_PARKED, parameters)}


def _storable(value: str) -> str:
    return value.replace("\x00", "\\0")  # PostgreSQL's text cannot hold U+0000


def _header_to_json(name: str, value: bytes | None) -> list[str | None]:
    """[name, text]; for bytes that are not UTF-8, [name, null, base64]."""
    try:
        return [name, None if value is None else value.decode()]
    except UnicodeDecodeError:
        return [name, None, b64encode(value or b"").decode()]


def _header_from_json(name: str, value: str | None = None, encoded: str | None = None) -> tuple[str, bytes | None]:
    if encoded is not None:
        return name, b64decode(encoded)
    return name, None if value is None else value.encode()


async def write(
    connection: Connection,
    consumer: str,
    received: Received,
    error: str,
    *,
    parks_key: bool,
    state: State = State.DEAD,
    identified: bool,
) -> None:
    """Keep a record. ``identified``: its id is claimed in this transaction, so it cannot be here already."""
    message_id = header(received, m.ID)
    parameters = {
        "consumer": consumer,
        "message_id": None if message_id is None else _storable(message_id),
        "channel": received.channel,
        "partition": received.partition,
        "position": received.position,
        "key": received.key,
        "headers": msgspec.json.encode([_header_to_json(*h) for h in received.headers]).decode(),
        "body": received.body,
        "error": _storable(error),
        "state": state.value,
        "attempts": 0 if state is State.PARKED else 1,
        "parks_key": parks_key and received.key is not None,
        "identified": identified,
    }
    await connection.execute(_INSERT, parameters)


# -- reading ---------------------------------------------------------------------------------------------------------

_COLUMNS = (
    "id, consumer, message_id, channel, partition, position, key, CAST(headers AS text) AS headers, body, error, "
    "failed_at, state, attempts, parks_key, resolved_at"
)
_GET = text(f"SELECT {_COLUMNS} FROM dead_letters WHERE id = :id")  # noqa: S608 - constants
_TAKE = text(f"SELECT {_COLUMNS} FROM dead_letters WHERE id = :id FOR UPDATE")  # noqa: S608
_LIST = text(
    f"SELECT {_COLUMNS} FROM dead_letters WHERE id > :after "  # noqa: S608
    "AND state = ANY(CAST(:states AS text[])) ORDER BY id LIMIT :limit"
)
_headers_of = msgspec.json.Decoder(list[list[Any]])

UNRESOLVED = (State.DEAD, State.PARKED, State.REDRIVE)


def _from_row(row: Mapping[str, Any]) -> DeadLetter:
    headers = [_header_from_json(*h) for h in _headers_of.decode(row["headers"])]
    return DeadLetter(**{**dict(row), "headers": headers, "state": State(row["state"])})


async def list_letters(
    connection: Connection, *, after: int = 0, limit: int = 50, states: Collection[State] = UNRESOLVED
) -> list[DeadLetter]:
    """Letters in the order in which they came, from behind the id ``after``."""
    parameters = {"after": after, "limit": limit, "states": [s.value for s in states]}
    return [_from_row(row) for row in await connection.execute(_LIST, parameters)]


async def get_letter(connection: Connection, letter_id: int) -> DeadLetter:
    """Raises NoSuchDeadLetter."""
    return _one(await connection.execute(_GET, {"id": letter_id}), letter_id)


def _one(rows: Sequence[Any], letter_id: int) -> DeadLetter:
    if not rows:
        raise NoSuchDeadLetter(f"There is no dead letter {letter_id}.")
    return _from_row(rows[0])


# -- resolving -------------------------------------------------------------------------------------------------------

_EARLIER = text(
    "SELECT min(id) FROM dead_letters WHERE consumer = :consumer AND channel = :channel AND key = :key "
    "AND parks_key AND resolved_at IS NULL AND id < :id"
)
_SET = text("UPDATE dead_letters SET state = :state WHERE id = :id")
_RESOLVE = text("UPDATE dead_letters SET state = :state, resolved_at = now() WHERE id = :id")
_NEXT = text(
    "UPDATE dead_letters SET state = 'REDRIVE' WHERE state = 'PARKED' AND id = ("
    "SELECT min(id) FROM dead_letters WHERE consumer = :consumer AND channel = :channel AND key = :key "
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
    await connection.execute(_FAILED, {"id": letter.id, "error": _storable(error)})
