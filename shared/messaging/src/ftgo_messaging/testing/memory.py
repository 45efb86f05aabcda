"""A unit of work over a dictionary: the same steps, the same discarding, no database. For tests of use cases."""

import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from sqlalchemy import Table

from ftgo_messaging.messages import codec
from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.registry import by_name
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.transaction.aggregates import Aggregates, Ref, Refs
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

T = TypeVar("T")
A = TypeVar("A")


class Memory:
    """Stands for the database and the outbox of one service."""

    def __init__(self, source: str = "test") -> None:
        self.source = source
        self.aggregates: dict[Ref, Any] = {}
        self.appended: list[tuple[Table, Mapping[str, Any]]] = []
        self.messages: list[Message] = []

    async def run(self, body: Callable[[UnitOfWork], Awaitable[T]], cause: Message | None = None) -> T:
        """Run ``body`` as one step of one transaction. What it raises is raised, and nothing is kept then."""
        uow = _MemoryUnitOfWork(self)
        async with uow.operation(cause):
            result = await body(uow)
        await uow.flush()
        return result

    def get(self, kind: Aggregates[A], key: str) -> A:
        return cast(A, self.aggregates[kind, key])

    def put(self, kind: Aggregates[A], aggregate: A) -> None:
        self.aggregates[kind, kind.key_of(aggregate)] = aggregate

    def sent(self) -> list[Any]:
        """The bodies of all messages so far, decoded from their bytes."""
        return [codec.decode(m.body, by_name(m.type).cls) for m in self.messages]


class _MemoryUnitOfWork(UnitOfWork):
    def __init__(self, memory: Memory) -> None:
        super().__init__(cast(Connection, None), memory.source)
        self._memory = memory

    async def load(self, refs: Refs) -> None:
        for ref in refs:
            self._loaded.setdefault(ref, copy.copy(self._memory.aggregates.get(ref)))

    async def flush(self) -> None:
        self._collect(self._operation)
        for ref in self._dirty:
            # Through the row and back, as the database would: a mapping that loses a field is found here.
            row = {c.name: None for c in ref[0].table.columns} | dict(ref[0].to_row(self._loaded[ref]))
            self._memory.aggregates[ref] = ref[0].from_row(row)
        for table, rows in self._appended.items():
            self._memory.appended += [(table, row) for row in rows]
        self._memory.messages += self._messages
