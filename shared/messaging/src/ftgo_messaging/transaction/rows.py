"""Multi-row statements with constant text: one round trip and one prepared plan for any number of rows.

Rows travel as one array per column and are unnested by the server. Values must be in the form that asyncpg
takes for the column's type; JSON columns take text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Table, TextClause, TypeDecorator, text
from sqlalchemy.dialects import postgresql

from ftgo_messaging.runtime.connection import Connection

_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


class FromNow(TypeDecorator[Any]):
    """A point in time, read and written as seconds from the database's ``now()``; negative when it is past.

    So no clock but the database's decides: a host whose clock is wrong, or two that differ, change nothing. Within a
    transaction ``now()`` stands still, and what is written as it was read does not move."""

    impl = DateTime(timezone=True)
    cache_ok = True


def _type(column: Column[Any]) -> str:
    return "double precision" if isinstance(column.type, FromNow) else column.type.compile(_dialect)


def _stored(column: Column[Any]) -> str:
    """The value that is stored, in terms of ``u``, the row that came."""
    value = f"u.{column.name}"
    return f"now() + make_interval(secs => {value})" if isinstance(column.type, FromNow) else value


def _read(column: Column[Any]) -> str:
    if isinstance(column.type, FromNow):
        return f"CAST(EXTRACT(EPOCH FROM {column.name} - now()) AS double precision) AS {column.name}"
    # JSON as text: our codec decodes it once, into the right class.
    return f"CAST({column.name} AS text) AS {column.name}" if isinstance(column.type, JSON) else column.name


@dataclass(frozen=True, slots=True)
class Write:
    """Rows for one table: an INSERT, or with ``key`` an UPDATE of the rows with these keys."""

    table: Table
    rows: Sequence[Mapping[str, Any]]
    key: str | None = None


def _written(table: Table) -> list[Column[Any]]:
    return [c for c in table.columns if c.identity is None]


@cache
def _statement(shape: tuple[tuple[Table, str | None], ...]) -> TextClause:
    """All writes as one statement with constant text: ``WITH w0 AS (INSERT ...), w1 AS (UPDATE ...) SELECT counts``."""
    parts = []
    for i, (table, key) in enumerate(shape):
        columns = _written(table)
        names = ", ".join(c.name for c in columns)
        stored = ", ".join(_stored(c) for c in columns)
        values = ", ".join(f"CAST(:w{i}_{c.name} AS {_type(c)}[])" for c in columns)
        if key is None:
            # Identity columns are numbered in the order of the rows.
            parts.append(
                f"w{i} AS (INSERT INTO {table.name} ({names}) SELECT {stored} "  # noqa: S608 - our own declarations
                f"FROM unnest({values}) WITH ORDINALITY AS u({names}, ord) ORDER BY ord RETURNING 1)"
            )
        else:
            sets = ", ".join(f"{c.name} = {_stored(c)}" for c in columns if c.name != key)
            parts.append(
                f"w{i} AS (UPDATE {table.name} AS t SET {sets} "  # noqa: S608
                f"FROM unnest({values}) AS u({names}) WHERE t.{key} = u.{key} RETURNING 1)"
            )
    counts = ", ".join(f"(SELECT count(*) FROM w{i})" for i in range(len(shape)))  # noqa: S608
    return text(f"WITH {', '.join(parts)} SELECT {counts}")


async def write(connection: Connection, writes: Sequence[Write]) -> list[int]:
    """Write everything in one round trip; returns how many rows each write has touched.

    The parts see the same snapshot, so a table's new rows must not be updated in the same call."""
    if not writes:
        return []
    statement = _statement(tuple((w.table, w.key) for w in writes))
    parameters = {
        f"w{i}_{c.name}": [row[c.name] for row in w.rows] for i, w in enumerate(writes) for c in _written(w.table)
    }
    return list((await connection.execute(statement, parameters))[0])


@cache
def select_by_key(table: Table, key: str, lock: bool) -> TextClause:
    """Rows by key, in key order, so that two transactions that lock several rows cannot deadlock."""
    names = ", ".join(_read(c) for c in table.columns)
    return text(
        f"SELECT {names} FROM {table.name} WHERE {key} = ANY(CAST(:keys AS {_type(table.c[key])}[])) "  # noqa: S608
        f"ORDER BY {key}{' FOR UPDATE' if lock else ''}"
    )
