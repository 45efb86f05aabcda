"""Multi-row statements with constant text: one round trip and one prepared plan for any number of rows.

Rows travel as one array per column and are unnested by the server. Values must be in the form that asyncpg
takes for the column's type; JSON columns take text.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import JSON, Column, Table, TextClause, text
from sqlalchemy.dialects import postgresql

_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def _type(column: Column[Any]) -> str:
    return column.type.compile(_dialect)


def _unnest(columns: Iterable[Column[Any]]) -> str:
    return ", ".join(f"CAST(:{c.name} AS {_type(c)}[])" for c in columns)


def _written(table: Table) -> list[Column[Any]]:
    return [c for c in table.columns if c.identity is None]


@cache
def insert(table: Table, suffix: str = "") -> TextClause:
    """Insert rows in the order given. Identity columns are numbered in that order."""
    columns = _written(table)
    names = ", ".join(c.name for c in columns)
    return text(
        f"INSERT INTO {table.name} ({names}) "  # noqa: S608 - names come from our own table declarations
        f"SELECT {names} FROM unnest({_unnest(columns)}) WITH ORDINALITY AS u({names}, ord) ORDER BY ord {suffix}"
    )


@cache
def update(table: Table, key: str) -> TextClause:
    """Write all columns of the rows with these keys."""
    columns = _written(table)
    names = ", ".join(c.name for c in columns)
    sets = ", ".join(f"{c.name} = u.{c.name}" for c in columns if c.name != key)
    return text(
        f"UPDATE {table.name} AS t SET {sets} FROM unnest({_unnest(columns)}) AS u({names}) "  # noqa: S608
        f"WHERE t.{key} = u.{key}"
    )


@cache
def select_by_key(table: Table, key: str, lock: bool) -> TextClause:
    """Rows by key, in key order, so that two transactions that lock several rows cannot deadlock."""
    # JSON as text: our codec decodes it once, into the right class.
    names = ", ".join(
        f"CAST({c.name} AS text) AS {c.name}" if isinstance(c.type, JSON) else c.name for c in table.columns
    )
    return text(
        f"SELECT {names} FROM {table.name} WHERE {key} = ANY(CAST(:keys AS {_type(table.c[key])}[])) "  # noqa: S608
        f"ORDER BY {key}{' FOR UPDATE' if lock else ''}"
    )


def arrays(table: Table, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as one list per written column: the parameters of ``insert`` and ``update``."""
    return {c.name: [row[c.name] for row in rows] for c in _written(table)}
