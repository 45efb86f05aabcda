"""How an aggregate is kept in a table: a declaration, no base class, no magic.

Aggregates are immutable: a transition returns a new one. That is what lets a unit of work discard the writes of one
message of a batch without a savepoint.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Table

A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Aggregates(Generic[A]):
    """The aggregates of one table.

    ``from_row`` gets a mapping of column names; ``to_row`` gives all columns but identity columns. With ``lock`` (the
    default) a loaded row stays locked until the commit, so writers of one aggregate are serialised."""

    table: Table
    key: str
    from_row: Callable[[Mapping[str, Any]], A]
    to_row: Callable[[A], Mapping[str, Any]]
    lock: bool = True

    def key_of(self, aggregate: A) -> str:
        return str(getattr(aggregate, self.key))


Ref = tuple[Aggregates[Any], str]
Refs = Iterable[Ref]
