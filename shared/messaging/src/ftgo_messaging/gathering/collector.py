"""Publish/asynchronous replies: an event with a reply channel, and the answers of all who have something to say.

Nobody knows who listens. So a gathering ends when as many answers are there as were expected, or at its deadline,
whichever comes first; it is told so once. An answer that comes later is recorded and changes nothing. The gathering is
a row, written in the transaction that publishes the event: it survives any crash.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, Index, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.registry import by_class, by_name
from ftgo_messaging.messages.replies import Reply
from ftgo_messaging.runtime.errors import Undecodable
from ftgo_messaging.runtime.loops import periodic
from ftgo_messaging.transaction.aggregates import Aggregates, Refs
from ftgo_messaging.transaction.rows import FromNow
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.upkeep.overdue import BATCH, deal_with_overdue

_LATE_KEPT = 100


class GatheringState(StrEnum):
    OPEN = "OPEN"
    COMPLETE = "COMPLETE"
    TIMED_OUT = "TIMED_OUT"


class Answer(msgspec.Struct, frozen=True):
    """One answer, as it is kept: who sent it, and what."""

    source: str
    type: str
    body: msgspec.Raw

    @property
    def reply(self) -> Reply:
        reply: Reply = codec.decode(bytes(self.body), by_name(self.type).cls)
        return reply


@dataclass(frozen=True, slots=True)
class Gathering:
    """``id`` is the id of the event, which every answer names. ``late`` are answers that came after the end, the newest
    100. A gathering that has ended never changes its state or its answers again."""

    id: str
    name: str
    expected: int
    state: GatheringState
    answers: tuple[Answer, ...]
    late: tuple[Answer, ...]
    due_in: float


def gatherings_table(metadata: MetaData) -> Table:
    table = Table(
        "gatherings",
        metadata,
        Column("id", Uuid(as_uuid=False), primary_key=True),
        Column("name", Text, nullable=False),
        Column("expected", Integer, nullable=False),
        Column("state", Text, nullable=False),
        Column("answers", JSON, nullable=False),
        Column("late", JSON, nullable=False),
        Column("deadline", FromNow, nullable=False),
        Column("finished", Boolean, nullable=False),
    )
    Index("gatherings_overdue", table.c.deadline, postgresql_where=~table.c.finished)
    return table


def _from_row(row: Mapping[str, Any]) -> Gathering:
    return Gathering(
        id=str(row["id"]),
        name=row["name"],
        expected=row["expected"],
        state=GatheringState(row["state"]),
        answers=codec.decode(row["answers"], tuple[Answer, ...]),
        late=codec.decode(row["late"], tuple[Answer, ...]),
        due_in=row["deadline"],
    )


def _to_row(gathering: Gathering) -> dict[str, Any]:
    return {
        "id": gathering.id,
        "name": gathering.name,
        "expected": gathering.expected,
        "state": gathering.state.value,
        "answers": codec.encode(gathering.answers).decode(),
        "late": codec.encode(gathering.late).decode(),
        "deadline": gathering.due_in,
        "finished": gathering.state is not GatheringState.OPEN,
    }


def gatherings(table: Table) -> Aggregates[Gathering]:
    """The gatherings of a service, locked while an answer is added."""
    return Aggregates(table, "id", _from_row, _to_row)


Ended = Callable[[Gathering, UnitOfWork], Awaitable[None]]


class Collector:
    """The gatherings of one kind, with a reply channel of their own. ``on_end`` takes effect exactly once for each, in
    the transaction that ends it."""

    def __init__(self, name: str, kept: Aggregates[Gathering], reply_channel: Channel, on_end: Ended) -> None:
        self.name = name
        self.gatherings = kept
        self.reply_channel = reply_channel
        self._on_end = on_end

    def ask(
        self, event: DomainEvent, uow: UnitOfWork, *, subject: str, version: int, expected: int, within: timedelta
    ) -> str:
        """Publish the event and begin to gather, in one transaction. Returns the gathering's id.

        It ends with the ``expected`` answers, or ``within`` that time by the database's clock, plus the few seconds
        that pass between two looks at the deadlines."""
        if self.reply_channel.name not in by_class(type(event)).reply_channels:
            raise LookupError(f"{type(event).__name__} does not list {self.reply_channel.name}: use replies_to=(...)")
        event_id = uow.publish(event, subject=subject, version=version, reply_channel=self.reply_channel)
        state, due_in = GatheringState.OPEN, within.total_seconds()
        uow.save(self.gatherings, Gathering(event_id, self.name, expected, state, (), (), due_in))
        return event_id

    def handlers(self, consumer: str, replies: Iterable[type[Reply]]) -> MessageHandlers:
        """Handlers that add every one of these reply types to the gathering that it answers."""
        handlers = MessageHandlers(consumer)
        for reply in replies:
            handlers.add(reply, self.on_answer, (self._loads,))
        return handlers

    def _loads(self, _: Any, message: Message, __: UnitOfWork) -> Refs:
        event_id = message.headers.get(m.IN_REPLY_TO, "")
        return [(self.gatherings, event_id)] if len(event_id) == 36 else []

    async def on_answer(self, reply: Reply, uow: UnitOfWork, message: Message) -> None:
        """Raises Undecodable (a dead letter) for an answer to a gathering that does not exist."""
        event_id = message.headers.get(m.IN_REPLY_TO, "")
        gathering: Gathering | None = None
        if len(event_id) == 36:
            gathering = await uow.find(self.gatherings, event_id)
        if gathering is None or gathering.name != self.name:
            raise Undecodable(f"answer {message.id} to the unknown gathering {event_id!r}")
        answer = Answer(message.headers.get(m.SOURCE, ""), message.type, msgspec.Raw(codec.encode(reply)))
        if gathering.state is not GatheringState.OPEN:
            uow.save(self.gatherings, replace(gathering, late=(*gathering.late, answer)[-_LATE_KEPT:]))
            return
        gathering = replace(gathering, answers=(*gathering.answers, answer))
        if len(gathering.answers) < gathering.expected:
            uow.save(self.gatherings, gathering)
        else:
            await self._end(gathering, GatheringState.COMPLETE, uow)

    async def close(self, gathering_id: str, uow: UnitOfWork) -> bool:
        """End it with the answers that are there, if it is open and its time is over; returns whether it was."""
        gathering = await uow.find(self.gatherings, gathering_id)
        if gathering is None or gathering.state is not GatheringState.OPEN or gathering.due_in > 0:
            return False
        if gathering.name != self.name:  # another collector's, in the same table
            return False
        await self._end(gathering, GatheringState.TIMED_OUT, uow)
        return True

    async def _end(self, gathering: Gathering, state: GatheringState, uow: UnitOfWork) -> None:
        ended = replace(gathering, state=state)
        uow.save(self.gatherings, ended)
        await self._on_end(ended, uow)


async def close_forever(collector: Collector, transactions: Transactions, every: float = 2.0) -> None:
    """End overdue gatherings of this collector every few seconds, until cancelled. Survives outages of the database.
    Several processes may run it."""

    async def close_all() -> None:
        while await deal_with_overdue(collector.gatherings.table, "id", collector.close, transactions) == BATCH:
            pass

    await periodic("gathering.close", close_all, every)
