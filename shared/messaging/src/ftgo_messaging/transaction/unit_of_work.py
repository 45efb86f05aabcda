"""One transaction: aggregates loaded together, messages and rows collected, all written by a few statements.

HTTP requests and messages use the same unit of work. Several *operations* (one per request or message) may share
one transaction. An operation that ends in a DomainError leaves nothing behind; the others are not touched. Any other
error rolls the whole transaction back.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Table, TextClause

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.documents import Document
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.replies import Reply
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import StaleAggregate
from ftgo_messaging.transaction import rows
from ftgo_messaging.transaction.aggregates import Aggregates, Ref, Refs

A = TypeVar("A")


class _Operation:
    """What one operation wants to write, kept apart until it has succeeded."""

    def __init__(self, cause: Message | None) -> None:
        self.cause = cause
        self.saved: dict[Ref, Any] = {}
        self.appended: list[tuple[Table, Mapping[str, Any]]] = []
        self.messages: list[Message] = []
        self.touched_database = False


class UnitOfWork:
    """Not task-safe: one task uses it, from begin to commit."""

    def __init__(self, connection: Connection, source: str) -> None:
        self.source = source
        self._connection = connection
        self._loaded: dict[Ref, Any] = {}
        self._stored: set[Ref] = set()
        self._dirty: set[Ref] = set()
        self._appended: dict[Table, list[Mapping[str, Any]]] = defaultdict(list)
        self._messages: list[Message] = []
        self._operation = _Operation(None)

    # -- reading ---------------------------------------------------------------------------------------------

    async def load(self, refs: Refs) -> None:
        """Load (and lock) aggregates with one SELECT per table, in key order."""
        wanted: dict[Aggregates[Any], set[str]] = defaultdict(set)
        for ref in refs:
            if ref not in self._loaded:
                wanted[ref[0]].add(ref[1])
        for kind, keys in wanted.items():
            statement = rows.select_by_key(kind.table, kind.key, kind.lock)
            for key in keys:
                self._loaded[kind, key] = None
            for row in await self._connection.execute(statement, {"keys": sorted(keys)}):
                ref = (kind, str(row[kind.key]))
                self._loaded[ref] = kind.from_row(dict(row))
                self._stored.add(ref)

    async def find(self, kind: Aggregates[A], key: str) -> A | None:
        """The aggregate as this operation sees it, or None. Loads it if nobody asked for it before."""
        ref = (kind, key)
        if ref in self._operation.saved:
            return self._operation.saved[ref]  # type: ignore[no-any-return]
        if ref not in self._loaded:
            await self.load([ref])
        return self._loaded[ref]  # type: ignore[no-any-return]

    def peek(self, kind: Aggregates[A], key: str) -> A | None:
        """The aggregate if it is loaded already, else None. For the later stages of loading."""
        return self._loaded.get((kind, key))

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Run a statement of one's own in this transaction; returns its rows.

        Allowed, but an operation that does so and then ends in a DomainError forces its batch to run again message by
        message, because its effect cannot be discarded alone."""
        self._operation.touched_database = True
        return await self._connection.execute(statement, parameters)

    # -- writing: nothing reaches the database before flush() ---------------------------------------------------

    def save(self, kind: Aggregates[A], aggregate: A) -> None:
        """Keep the aggregate's new state. Inserted if ``find`` did not see it, else updated."""
        self._operation.saved[kind, kind.key_of(aggregate)] = aggregate

    def append(self, table: Table, row: Mapping[str, Any]) -> None:
        """Add a row to an append-only table."""
        self._operation.appended.append((table, row))

    def send(
        self,
        command: Command[Any],
        *,
        reply_channel: Channel | None = None,
        saga_type: str | None = None,
        saga_id: str | None = None,
        message_id: str | None = None,
    ) -> str:
        """Send a command; returns its message id. Without ``reply_channel`` it is a one-way notification."""
        return self._emit(
            writer.command_message(
                command, message_id or new_id(), self.source, self._operation.cause, reply_channel, saga_type, saga_id
            )
        )

    def reply(self, reply: Reply) -> str | None:
        """Answer the command of this operation. A one-way notification asks for no answer, and gets none."""
        message = writer.reply_message(reply, new_id(), self.source, self._operation.cause)
        return self._emit(message) if message else None

    def publish(self, event: DomainEvent, *, subject: str, version: int, reply_channel: Channel | None = None) -> str:
        """Publish an event of the aggregate ``subject`` that is now at ``version``. With ``reply_channel`` those who
        listen may answer: see ``gathering``, which collects the answers."""
        cause = self._operation.cause
        return self._emit(writer.event_message(event, new_id(), self.source, cause, subject, version, reply_channel))

    def send_document(self, document: Document) -> str:
        """Send a document on its channel; returns its message id."""
        return self._emit(writer.document_message(document, new_id(), self.source, self._operation.cause))

    def _emit(self, message: Message) -> str:
        writer.check_size(message)
        self._operation.messages.append(message)
        return message.id

    # -- operations and the end ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def operation(self, cause: Message | None = None) -> AsyncIterator[None]:
        """What happens inside is kept as a whole, or discarded as a whole when it raises."""
        outer, self._operation = self._operation, _Operation(cause)
        try:
            yield
            self._collect(self._operation)
        finally:
            # An operation inside another: what it did to the database cannot be discarded with it.
            outer.touched_database |= self._operation.touched_database
            self._operation = outer

    @property
    def touched_database(self) -> bool:
        """Whether the running operation executed statements of its own."""
        return self._operation.touched_database

    def _collect(self, operation: _Operation) -> None:
        for ref, aggregate in operation.saved.items():
            self._loaded[ref] = aggregate
            self._dirty.add(ref)
        for table, row in operation.appended:
            self._appended[table].append(row)
        self._messages.extend(operation.messages)

    async def flush(self) -> None:
        """Write everything collected by one statement: new and changed aggregates, appended rows, messages.

        Positions in the outbox are taken here, under the locks that loading has taken: that gives the order per key."""
        self._collect(self._operation)
        self._operation = _Operation(None)
        new: dict[Aggregates[Any], list[Mapping[str, Any]]] = defaultdict(list)
        changed: dict[Aggregates[Any], list[Mapping[str, Any]]] = defaultdict(list)
        for ref in sorted(self._dirty, key=lambda r: (r[0].table.name, r[1])):
            kind = ref[0]
            (changed if ref in self._stored else new)[kind].append(kind.to_row(self._loaded[ref]))
        writes = [rows.Write(kind.table, values) for kind, values in new.items()]
        writes += [rows.Write(kind.table, values, kind.key) for kind, values in changed.items()]
        writes += [rows.Write(table, appended) for table, appended in self._appended.items()]
        if self._messages:
            writes.append(rows.Write(writer.OUTBOX, writer.rows_of(self._messages)))
        for write, count in zip(writes, await rows.write(self._connection, writes), strict=True):
            if count != len(write.rows):
                raise StaleAggregate(f"{write.table.name}: {len(write.rows) - count} rows went away")

    @property
    def messages(self) -> Iterable[Message]:
        """The messages that the commit makes public."""
        return self._messages

    def appended(self, table: Table) -> Sequence[Mapping[str, Any]]:
        """The rows that were added to an append-only table."""
        return self._appended.get(table, ())

    def changed(self, kind: Aggregates[A]) -> list[str]:
        """Keys of the aggregates of this kind that were written."""
        return [key for k, key in self._dirty if k is kind]
