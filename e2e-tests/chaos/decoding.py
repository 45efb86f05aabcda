"""Reads pgoutput (protocol version 1), the output of a logical replication slot: whole transactions, in commit order.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_EPOCH_2000 = 946_684_800  # PostgreSQL counts microseconds from 2000-01-01, we seconds from 1970-01-01


@dataclass(frozen=True)
class Change:
    """A row that was written: ``row`` is the new one, of a delete the key only. Values are text or None; a large value
    that an update left alone is not in it."""

    operation: str  # insert, update, delete
    table: str
    row: dict[str, str | None]


@dataclass
class Transaction:
    """What one commit made visible. ``end`` is the position in the log behind it."""

    xid: int
    end: int = 0
    committed_at: float = 0.0
    changes: list[Change] = field(default_factory=list)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: str) -> Any:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values[0]

    def text(self) -> str:
        end = self._data.index(0, self._at)
        value = self._data[self._at : end].decode()
        self._at = end + 1
        return value

    def take(self, count: int) -> bytes:
        value = self._data[self._at : self._at + count]
        self._at += count
        return value

    def letter(self) -> str:
        return self.take(1).decode()


def transactions(messages: Iterable[bytes]) -> Iterator[Transaction]:
    """The transactions in the messages of one reading. A reading begins with what the tables look like."""
    relations: dict[int, tuple[str, list[str]]] = {}
    current = Transaction(0)
    for message in messages:
        reader = _Reader(message)
        match reader.letter():
            case "B":
                reader.unpack(">q")
                reader.unpack(">q")
                current = Transaction(reader.unpack(">i"))
            case "C":
                reader.unpack(">b")
                reader.unpack(">q")
                current.end = reader.unpack(">q")
                current.committed_at = reader.unpack(">q") / 1_000_000 + _EPOCH_2000
                yield current
            case "R":
                oid = reader.unpack(">i")
                reader.text()
                relations[oid] = (reader.text(), _columns(reader))
            case "I":
                table, columns = relations[reader.unpack(">i")]
                reader.letter()
                current.changes.append(Change("insert", table, _row(reader, columns)))
            case "U":
                table, columns = relations[reader.unpack(">i")]
                if reader.letter() != "N":
                    _row(reader, columns)  # the old key
                    reader.letter()
                current.changes.append(Change("update", table, _row(reader, columns)))
            case "D":
                table, columns = relations[reader.unpack(">i")]
                reader.letter()
                current.changes.append(Change("delete", table, _row(reader, columns)))
            case _:
                continue  # types, origins, truncations


def _columns(reader: _Reader) -> list[str]:
    reader.unpack(">b")
    names = []
    for _ in range(reader.unpack(">h")):
        reader.unpack(">b")
        names.append(reader.text())
        reader.unpack(">i")
        reader.unpack(">i")
    return names


def _row(reader: _Reader, columns: list[str]) -> dict[str, str | None]:
    row: dict[str, str | None] = {}
    for name in columns[: reader.unpack(">h")]:
        match reader.letter():
            case "n":
                row[name] = None
            case "t":
                row[name] = reader.take(reader.unpack(">i")).decode()
            case _:
                continue  # an unchanged large value: not sent
    return row
