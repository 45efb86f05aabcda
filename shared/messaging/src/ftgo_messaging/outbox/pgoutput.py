"""Decodes pgoutput, the format of PostgreSQL's logical replication (protocol version 1). No input or output.

A transaction arrives whole and after its commit: Begin, then its changes, then Commit. A Relation precedes the first
change of each table on a connection, and comes again when the table was altered.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import struct
from typing import NamedTuple


class Begin(NamedTuple):
    """``final_lsn`` is where the commit record begins."""

    final_lsn: int
    xid: int


class Commit(NamedTuple):
    """Everything up to ``end_lsn`` that belongs to this transaction has been sent."""

    commit_lsn: int
    end_lsn: int


class Relation(NamedTuple):
    id: int
    schema: str
    name: str
    columns: tuple[str, ...]


class Insert(NamedTuple):
    """A new row, columns in the relation's order, None for NULL. Bytes as the server sends them: text, or with the
    option ``binary`` the type's binary form."""

    relation: int
    values: tuple[bytes | None, ...]


class LogicalMessage(NamedTuple):
    """What ``pg_logical_emit_message`` wrote. One that is not transactional stands outside of Begin and Commit."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Event = Begin | Commit | Relation | Insert | LogicalMessage

_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!xQQq")
_MESSAGE = struct.Struct("!BQ")
_UINT32 = struct.Struct("!I")
_UINT16 = struct.Struct("!H")
_COLUMN = struct.Struct("!Ii")

_NULL, _UNCHANGED = ord("n"), ord("u")


def decode(payload: bytes) -> Event | None:
    """The event in one replication message, or None for kinds that a publication of inserts has no use for (types,
    origins, updates, deletes, truncations). Raises ValueError for bytes that are no pgoutput."""
    try:
        match payload[:1]:
            case b"I":
                return _insert(payload)
            case b"B":
                final_lsn, _, xid = _BEGIN.unpack_from(payload, 1)
                return Begin(final_lsn, xid)
            case b"C":
                commit_lsn, end_lsn, _ = _COMMIT.unpack_from(payload, 1)
                return Commit(commit_lsn, end_lsn)
            case b"R":
                return _relation(payload)
            case b"M":
                return _message(payload)
            case b"Y" | b"O" | b"U" | b"D" | b"T":
                return None
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"cut off, or not pgoutput: {payload[:40]!r}: {error}") from error
    raise ValueError(f"not pgoutput version 1: {payload[:40]!r}")


def _insert(payload: bytes) -> Insert:
    (relation,) = _UINT32.unpack_from(payload, 1)
    if payload[5] != ord("N"):
        raise ValueError(f"an insert without a new row: {payload[:40]!r}")
    (count,) = _UINT16.unpack_from(payload, 6)
    at = 8
    values: list[bytes | None] = []
    for _ in range(count):
        kind = payload[at]
        if kind in {_NULL, _UNCHANGED}:
            values.append(None)
            at += 1
            continue
        (length,) = _UINT32.unpack_from(payload, at + 1)
        at += 5
        value = payload[at : at + length]
        if len(value) < length:
            raise ValueError(f"a value of {length} bytes is cut off after {len(value)}")
        values.append(value)
        at += length
    return Insert(relation, tuple(values))


def _relation(payload: bytes) -> Relation:
    (relation,) = _UINT32.unpack_from(payload, 1)
    schema, at = _string(payload, 5)
    name, at = _string(payload, at)
    (count,) = _UINT16.unpack_from(payload, at + 1)  # after the replica identity
    at += 3
    columns = []
    for _ in range(count):
        column, at = _string(payload, at + 1)  # after the flags
        _COLUMN.unpack_from(payload, at)  # type and modifier: the relay knows its table
        at += _COLUMN.size
        columns.append(column)
    return Relation(relation, schema, name, tuple(columns))


def _message(payload: bytes) -> LogicalMessage:
    flags, lsn = _MESSAGE.unpack_from(payload, 1)
    prefix, at = _string(payload, 1 + _MESSAGE.size)
    (length,) = _UINT32.unpack_from(payload, at)
    content = payload[at + 4 : at + 4 + length]
    if len(content) < length:
        raise ValueError(f"a message of {length} bytes is cut off after {len(content)}")
    return LogicalMessage(bool(flags & 1), lsn, prefix, content)


def _string(payload: bytes, at: int) -> tuple[str, int]:
    end = payload.index(b"\0", at)
    return payload[at:end].decode(), end + 1


def lsn_of(text: str) -> int:
    """A log sequence number as the server prints it (``16/B374D848``) as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
