"""One run of a saga: a row with its step, its data and the id of the command whose reply it awaits."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, Index, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from ftgo_messaging.transaction.aggregates import Aggregates
from ftgo_messaging.transaction.rows import FromNow

_HISTORY_BEGINNING, _HISTORY_END = 20, 80


class SagaState(StrEnum):
    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"

    @property
    def final(self) -> bool:
        return self in {SagaState.COMPLETED, SagaState.COMPENSATED}


@dataclass(frozen=True, slots=True)
class SagaInstance:
    """``step`` is the name of the step whose command is awaited, ``due_in`` how many seconds of its time were left when
    the instance was read, ``attempts`` how often it was asked.

    ``history`` has one entry per thing that happened: [step, what, time]; the times are for the reader, nothing is
    decided by them. It is bounded: of a long one the middle is left out. A final instance awaits nothing; its deadline
    no longer matters, but is never null."""

    saga_id: str
    type: str
    definition_version: int
    state: SagaState
    step: str
    data: bytes
    awaited_command: str | None
    due_in: float
    attempts: int
    history: tuple[tuple[str, str, str], ...]
    version: int


def saga_instances_table(metadata: MetaData) -> Table:
    table = Table(
        "saga_instances",
        metadata,
        Column("saga_id", Uuid(as_uuid=False), primary_key=True),
        Column("type", Text, nullable=False),
        Column("definition_version", Integer, nullable=False),
        Column("state", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("data", JSON, nullable=False),
        Column("awaited_command", Uuid(as_uuid=False), nullable=True),
        Column("deadline", FromNow, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("history", JSON, nullable=False),
        Column("finished", Boolean, nullable=False),
        Column("version", Integer, nullable=False),
    )
    # The reconciler looks for overdue instances among the unfinished ones only.
    Index("saga_instances_overdue", table.c.deadline, postgresql_where=~table.c.finished)
    return table


def noted(saga: SagaInstance, step: str, what: str, when: datetime) -> SagaInstance:
    """The instance with one more entry in its history. Of more than 100 the first 20 stay, and the newest."""
    history = (*saga.history, (step, what, when.isoformat(timespec="milliseconds")))
    kept = (*history[:_HISTORY_BEGINNING], *history[_HISTORY_BEGINNING:][-_HISTORY_END:])
    return replace(saga, history=kept)


_history = msgspec.json.Decoder(tuple[tuple[str, str, str], ...])


def _from_row(row: Mapping[str, Any]) -> SagaInstance:
    return SagaInstance(
        saga_id=str(row["saga_id"]),
        type=row["type"],
        definition_version=row["definition_version"],
        state=SagaState(row["state"]),
        step=row["step"],
        data=row["data"].encode(),
        awaited_command=str(row["awaited_command"]) if row["awaited_command"] else None,
        due_in=row["deadline"],
        attempts=row["attempts"],
        history=_history.decode(row["history"]),
        version=row["version"],
    )


def _to_row(saga: SagaInstance) -> dict[str, Any]:
    return {
        "saga_id": saga.saga_id,
        "type": saga.type,
        "definition_version": saga.definition_version,
        "state": saga.state.value,
        "step": saga.step,
        "data": saga.data.decode(),
        "awaited_command": saga.awaited_command,
        "deadline": saga.due_in,
        "attempts": saga.attempts,
        "history": msgspec.json.encode(saga.history).decode(),
        "finished": saga.state.final,
        "version": saga.version,
    }


def saga_instances(table: Table) -> Aggregates[SagaInstance]:
    """The instances of all sagas of a service, locked while one of them is moved on."""
    return Aggregates(table, "saga_id", _from_row, _to_row)
