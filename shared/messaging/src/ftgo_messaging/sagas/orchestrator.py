"""Moves sagas on. Starting, replies and time-outs are transitions under the lock of the instance's row.

A reply counts only if it answers the command that the instance awaits. Anything else (late, doubled, foreign) is
recorded in the history and changes nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from ftgo_messaging import codec
from ftgo_messaging import message as m
from ftgo_messaging.aggregates import Aggregates, Refs
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.errors import Undecodable
from ftgo_messaging.failpoints import failpoint
from ftgo_messaging.ids import new_id
from ftgo_messaging.message import Message
from ftgo_messaging.replies import Failure, Reply
from ftgo_messaging.sagas.definition import Saga, SagaStep, StepKind
from ftgo_messaging.sagas.instance import SagaInstance, SagaState
from ftgo_messaging.transactions import Step, Transactions
from ftgo_messaging.unit_of_work import UnitOfWork

log = structlog.get_logger("ftgo.saga")

ENDED = Counter("ftgo_sagas_ended_total", "Sagas by how they ended", ["type", "state"])
DROPPED = Counter("ftgo_saga_replies_dropped_total", "Replies that answered no awaited command", ["type"])
RESENT = Counter("ftgo_saga_commands_resent_total", "Commands sent again after their deadline", ["type"])

_HISTORY_LIMIT = 100
_OVERDUE = text(
    "SELECT saga_id FROM saga_instances WHERE NOT finished AND deadline < now() ORDER BY deadline LIMIT :limit"
)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Orchestrator:
    """The sagas of one service. Every version that an unfinished instance may have must be registered."""

    def __init__(
        self,
        instances: Aggregates[SagaInstance],
        definitions: Iterable[Saga[Any]] = (),
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.instances = instances
        self._definitions: dict[tuple[str, int], Saga[Any]] = {}
        self._now = now
        for definition in definitions:
            self.register(definition)

    def register(self, definition: Saga[Any]) -> None:
        """Add a definition. Raises ValueError if this version is there already."""
        key = (definition.type, definition.version)
        if key in self._definitions:
            raise ValueError(f"saga {definition.type} version {definition.version} is registered already")
        self._definitions[key] = definition

    def definition(self, instance: SagaInstance) -> Saga[Any]:
        try:
            return self._definitions[instance.type, instance.definition_version]
        except KeyError:
            raise LookupError(
                f"saga {instance.saga_id} needs {instance.type} version {instance.definition_version}, which this "
                "release no longer has: keep a definition until its last instance has ended"
            ) from None

    async def start(self, definition: Saga[Any], data: Any, uow: UnitOfWork, saga_id: str | None = None) -> str:
        """Create an instance and run its first steps, in the caller's transaction. Returns the saga's id."""
        instance = SagaInstance(
            saga_id=saga_id or new_id(),
            type=definition.type,
            definition_version=definition.version,
            state=SagaState.RUNNING,
            step=definition.steps[0].name,
            data=b"",
            awaited_command=None,
            deadline=self._now(),
            attempts=0,
            history=(),
            version=0,
        )
        await self._go_forward(definition, instance, data, 0, uow)
        return instance.saga_id

    def handlers(self, consumer: str, replies: Iterable[type]) -> MessageHandlers:
        """Handlers that feed every one of these reply types to the instance that awaits it."""
        handlers = MessageHandlers(consumer)
        for reply in replies:
            handlers.add(reply, self.on_reply, (self._load_instance, self._load_locals))
        return handlers

    def _load_instance(self, _: Any, message: Message, __: UnitOfWork) -> Refs:
        saga_id = message.headers.get(m.SAGA_ID, "")
        return [(self.instances, saga_id)] if len(saga_id) == 36 else []

    def _load_locals(self, _: Any, message: Message, uow: UnitOfWork) -> Refs:
        instance = uow.peek(self.instances, message.headers.get(m.SAGA_ID, ""))
        if instance is None or instance.state.final:
            return []
        definition = self.definition(instance)
        return definition.loads(codec.decode(instance.data, definition.data))

    async def on_reply(self, reply: Reply, uow: UnitOfWork, message: Message) -> None:
        """Move the instance on. Raises Undecodable (a dead letter) when no such saga exists."""
        saga_id = message.headers.get(m.SAGA_ID, "")
        instance: SagaInstance | None = None
        if len(saga_id) == 36:
            instance = await uow.find(self.instances, saga_id)
        if instance is None:
            raise Undecodable(f"reply {message.id} to the unknown saga {saga_id!r}")
        if message.headers.get(m.IN_REPLY_TO) != instance.awaited_command or instance.awaited_command is None:
            DROPPED.labels(instance.type).inc()
            self._save(instance, uow, f"dropped {message.type}")
            return
        definition = self.definition(instance)
        data = codec.decode(instance.data, definition.data)
        index = definition.index(instance.step)
        if instance.state is SagaState.COMPENSATING:
            await self._on_compensated(definition, instance, data, index, reply, uow)
        else:
            await self._on_answer(definition, instance, data, index, reply, uow)

    async def _on_answer(
        self, definition: Saga[Any], instance: SagaInstance, data: Any, index: int, reply: Reply, uow: UnitOfWork
    ) -> None:
        step = definition.steps[index]
        if not isinstance(reply, Failure):
            fold = step.on_reply.get(type(reply))
            data = fold(data, reply) if fold else data
            instance = _noted(instance, step.name, "done", self._now())
            await self._go_forward(definition, instance, data, index + 1, uow)
        elif step.kind is StepKind.RETRIABLE:
            # A retriable step may not be refused. Keep the deadline: the reconciler asks again, with a new id.
            log.warning("saga.retriable_refused", saga=instance.saga_id, step=step.name, reason=reply.reason)
            waiting = replace(instance, awaited_command=None)
            self._save(waiting, uow, f"refused {reply.reason}", data)
        else:
            data = step.on_failure(data, reply) if step.on_failure else data
            instance = replace(instance, state=SagaState.COMPENSATING)
            instance = _noted(instance, step.name, f"failed {reply.reason}", self._now())
            await self._go_back(definition, instance, data, index - 1, uow)

    async def _on_compensated(
        self, definition: Saga[Any], instance: SagaInstance, data: Any, index: int, reply: Reply, uow: UnitOfWork
    ) -> None:
        if isinstance(reply, Failure):
            log.warning("saga.compensation_refused", saga=instance.saga_id, step=instance.step, reason=reply.reason)
            self._save(replace(instance, awaited_command=None), uow, f"compensation refused {reply.reason}", data)
            return
        instance = _noted(instance, instance.step, "compensated", self._now())
        await self._go_back(definition, instance, data, index - 1, uow)

    async def _go_forward(
        self, definition: Saga[Any], instance: SagaInstance, data: Any, index: int, uow: UnitOfWork
    ) -> None:
        """Run local steps from ``index`` on until a command has to be awaited, or the saga is complete."""
        while index < len(definition.steps):
            step = definition.steps[index]
            if step.command is not None:
                self._ask(definition, instance, step, step.command(data), data, uow)
                return
            if step.local is not None:
                await step.local(data, uow)
                instance = _noted(instance, step.name, "done", self._now())
            index += 1
        self._end(instance, SagaState.COMPLETED, data, uow)

    async def _go_back(
        self, definition: Saga[Any], instance: SagaInstance, data: Any, index: int, uow: UnitOfWork
    ) -> None:
        """Undo steps from ``index`` down to the first."""
        while index >= 0:
            step = definition.steps[index]
            if step.compensation is not None:
                self._ask(definition, instance, step, step.compensation(data), data, uow)
                return
            if step.undo is not None:
                await step.undo(data, uow)
                instance = _noted(instance, step.name, "undone", self._now())
            index -= 1
        self._end(instance, SagaState.COMPENSATED, data, uow)

    def _ask(
        self,
        definition: Saga[Any],
        instance: SagaInstance,
        step: SagaStep[Any],
        command: Any,
        data: Any,
        uow: UnitOfWork,
    ) -> None:
        awaited = uow.send(
            command, reply_channel=definition.reply_channel, saga_type=definition.type, saga_id=instance.saga_id
        )
        deadline = self._now() + definition.patience
        asked = replace(instance, step=step.name, awaited_command=awaited, deadline=deadline, attempts=1)
        self._save(asked, uow, f"asked {type(command).__name__}", data)

    def _end(self, instance: SagaInstance, state: SagaState, data: Any, uow: UnitOfWork) -> None:
        ENDED.labels(instance.type, state.value).inc()
        self._save(replace(instance, state=state, awaited_command=None), uow, state.value.lower(), data)

    def _save(self, instance: SagaInstance, uow: UnitOfWork, what: str, data: Any = None) -> None:
        if data is not None:
            instance = replace(instance, data=codec.encode(data))
        noted = _noted(instance, instance.step, what, self._now())
        uow.save(self.instances, replace(noted, version=noted.version + 1))

    # -- recovery --------------------------------------------------------------------------------------------------

    async def remind(self, saga_id: str, uow: UnitOfWork) -> bool:
        """Send the awaited command again, with its own id, if the deadline is over; returns whether it was.

        The participant that has handled that id drops the repetition, so this can never do harm. After a refusal of a
        step that cannot be refused the command gets a new id: the participant is to try again for real."""
        instance = await uow.find(self.instances, saga_id)
        if instance is None or instance.state.final or instance.deadline > self._now():
            return False
        definition = self.definition(instance)
        data = codec.decode(instance.data, definition.data)
        step = definition.steps[definition.index(instance.step)]
        make = step.compensation if instance.state is SagaState.COMPENSATING else step.command
        if make is None:
            raise LookupError(f"saga {saga_id} waits in the local step {step.name}, which awaits nothing")
        command_id = uow.send(
            make(data),
            reply_channel=definition.reply_channel,
            saga_type=definition.type,
            saga_id=instance.saga_id,
            message_id=instance.awaited_command,
        )
        RESENT.labels(instance.type).inc()
        # Twice the patience with every attempt, at most 32 times.
        wait = definition.patience * 2 ** min(instance.attempts, 5)
        again = replace(
            instance, awaited_command=command_id, deadline=self._now() + wait, attempts=instance.attempts + 1
        )
        self._save(again, uow, "reminded")
        return True

    async def reconcile(self, transactions: Transactions, limit: int = 100) -> int:
        """Remind all overdue instances, each in a transaction of its own. Returns how many. Run it in a loop."""
        async with transactions.engine.connect() as connection:
            overdue = [str(row[0]) for row in await connection.execute(_OVERDUE, {"limit": limit})]
        if overdue:
            failpoint("reconciler.found")
        reminded = 0
        for saga_id in overdue:

            async def remind(uow: UnitOfWork, saga_id: str = saga_id) -> bool:
                return await self.remind(saga_id, uow)

            reminded += await transactions.run_step(Step(remind))
            failpoint("reconciler.reminded")
        return reminded


def _noted(instance: SagaInstance, step: str, what: str, when: datetime) -> SagaInstance:
    entry = (step, what, when.isoformat(timespec="milliseconds"))
    return replace(instance, history=(*instance.history[-_HISTORY_LIMIT + 1 :], entry))
