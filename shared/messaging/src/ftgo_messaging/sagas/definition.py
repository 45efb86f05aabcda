"""A saga is a declaration: its steps in order, each compensatable, pivot or retriable, checked when it is built.

    compensatable*  then at most one pivot  then retriable*

Before the pivot everything can be undone; after it everything is repeated until it succeeds. So a saga always ends.
"""

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.replies import Failure
from ftgo_messaging.transaction.aggregates import Refs
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

D = TypeVar("D", bound=msgspec.Struct)


class StepKind(StrEnum):
    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


@dataclass(frozen=True, kw_only=True)
class SagaStep(Generic[D]):
    """One step: a ``command`` to a participant, or a ``local`` action in the saga's own transaction.

    ``on_reply`` and ``on_failure`` fold a reply into the saga's data. ``compensation`` (a command) or ``undo`` (local)
    take the step back; a compensation cannot be refused and must succeed for a step that was never carried out, for
    after a time-out nobody knows whether it was. A command without a compensation must have changed nothing.

    A pivot that was answered is never taken back. ``if_unanswered`` is for a pivot whose answer does not come: the
    command that takes it back, whether it was carried out or not. Without it the pivot is asked until it answers."""

    name: str
    kind: StepKind = StepKind.COMPENSATABLE
    command: Callable[[D], Command[Any]] | None = None
    local: Callable[[D, UnitOfWork], Awaitable[None]] | None = None
    compensation: Callable[[D], Command[Any]] | None = None
    undo: Callable[[D, UnitOfWork], Awaitable[None]] | None = None
    on_reply: Mapping[type, Callable[[D, Any], D]] = field(default_factory=dict)
    on_failure: Callable[[D, Failure], D] | None = None
    if_unanswered: Callable[[D], Command[Any]] | None = None

    @property
    def taken_back_by(self) -> Callable[[D], Command[Any]] | None:
        """What is asked of the participant when the saga goes back over this step."""
        return self.compensation or self.if_unanswered

    @property
    def can_time_out(self) -> bool:
        """Whether the saga can turn back while it awaits this step's answer."""
        return self.kind is StepKind.COMPENSATABLE or self.if_unanswered is not None


class InvalidSaga(Exception):
    """The declaration breaks a rule; the sentence says which."""


@dataclass(frozen=True, eq=False)
class Saga(Generic[D]):
    """A saga definition. ``version`` grows whenever steps change; running instances keep theirs, so old definitions
    stay registered until their last instance has ended. ``needs`` names the aggregates that local steps use."""

    type: str
    version: int
    data: builtins.type[D]
    reply_channel: Channel
    steps: Sequence[SagaStep[D]]
    needs: Callable[[D], Refs] = lambda _: ()
    patience: timedelta = timedelta(seconds=30)
    """How long a reply is waited for before the command is sent again; doubled each time, up to 32 times as long."""
    reminders: int = 5
    """How often a command is sent again: with the same id, but half-way (every third time, by default) with a new one,
    which a participant must bear. When its answer has not come after that, a saga that can still turn back does
    (with the default patience after half an hour), whatever became of the command; a saga that cannot goes on asking,
    and counts as stuck."""

    def __post_init__(self) -> None:
        names = [s.name for s in self.steps]
        if not names or len(set(names)) != len(names):
            raise InvalidSaga(f"{self.type}: a saga needs steps, and their names must differ: {names}")
        order = [list(StepKind).index(s.kind) for s in self.steps]
        if order != sorted(order):
            raise InvalidSaga(f"{self.type}: the order must be compensatable, pivot, retriable: {names}")
        if sum(s.kind is StepKind.PIVOT for s in self.steps) > 1:
            raise InvalidSaga(f"{self.type}: there can be only one pivot")
        for step in self.steps:
            where = f"{self.type}, step {step.name!r}"
            if (step.command is None) == (step.local is None):
                raise InvalidSaga(f"{where}: give either a command or a local action")
            if step.compensation is not None and step.undo is not None:
                raise InvalidSaga(f"{where}: give a compensation or a local undo, not both")
            if step.kind is not StepKind.COMPENSATABLE and (step.compensation or step.undo):
                raise InvalidSaga(f"{where}: a {step.kind} step is never taken back; it must not have a compensation")
            if step.if_unanswered is not None and (step.kind is not StepKind.PIVOT or step.command is None):
                raise InvalidSaga(f"{where}: if_unanswered is for a pivot that is a command")

    def index(self, name: str) -> int:
        return next(i for i, s in enumerate(self.steps) if s.name == name)
