"""Moves sagas on. Starting, replies and time-outs are transitions under the lock of the instance's row.

A reply counts only if it answers the command that the instance awaits. Anything else (late, doubled, foreign) is
recorded in the history and changes nothing. So of a reply and a time-out at the same moment one comes first, and the
other finds that it is too late.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.replies import Failure, Reply
from ftgo_messaging.runtime.errors import Undecodable
from ftgo_messaging.sagas.definition import Saga, SagaStep, StepKind
from ftgo_messaging.sagas.instance import SagaInstance, SagaState, noted
from ftgo_messaging.sagas.steps import Steps, utc_now
from ftgo_messaging.transaction.aggregates import Aggregates, Refs
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

log = structlog.get_logger("ftgo.saga")

DROPPED = Counter("ftgo_saga_replies_dropped_total", "Replies that answered no awaited command", ["type"])
RESENT = Counter("ftgo_saga_commands_resent_total", "Commands sent again after their deadline", ["type"])
TURNED = Counter("ftgo_sagas_turned_back_total", "Sagas that turned to compensation without an answer", ["type"])


class Orchestrator:
    """The sagas of one service. Every version that an unfinished instance may have must be registered.

    ``now`` only dates the entries of the history. Deadlines are the database's business."""

    def __init__(
        self,
        instances: Aggregates[SagaInstance],
        definitions: Iterable[Saga[Any]] = (),
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.instances = instances
        self._definitions: dict[tuple[str, int], Saga[Any]] = {}
        self._steps = Steps(instances, now)
        for definition in definitions:
            self.register(definition)

    def register(self, definition: Saga[Any]) -> None:
        """Add a definition. Raises ValueError if this version is there already."""
        key = (definition.type, definition.version)
        if key in self._definitions:
            raise ValueError(f"saga {definition.type} version {definition.version} is registered already")
        self._definitions[key] = definition

    @property
    def types(self) -> set[str]:
        """The types of saga that are registered, in whichever version."""
        return {type for type, _ in self._definitions}

    def definition(self, instance: SagaInstance) -> Saga[Any]:
        try:
            return self._definitions[instance.type, instance.definition_version]
        except KeyError:
            raise LookupError(
                f"saga {instance.saga_id} needs {instance.type} version {instance.definition_version}, which this "
                "release does not have yet, or no longer: redrive with one that has it, and keep a definition until "
                "its last instance has ended"
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
            due_in=0.0,
            attempts=0,
            history=(),
            version=0,
        )
        await self._steps.go_forward(definition, instance, data, 0, uow)
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

    def _load_locals(self, reply: Reply, message: Message, uow: UnitOfWork) -> Refs:
        """What local steps work on, unless the next step only asks a participant."""
        instance = uow.peek(self.instances, message.headers.get(m.SAGA_ID, ""))
        if instance is None or instance.state.final:
            return []
        definition = self.definition(instance)
        if instance.state is SagaState.RUNNING and not isinstance(reply, Failure):
            following = definition.steps[definition.index(instance.step) + 1 :]
            if following and following[0].command is not None:
                return []
        return definition.needs(codec.decode(instance.data, definition.data))

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
            self._steps.save(instance, uow, f"dropped {message.type}")
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
            instance = noted(instance, step.name, "done", self._steps.now())
            await self._steps.go_forward(definition, instance, data, index + 1, uow)
        elif step.kind is StepKind.RETRIABLE:
            # A retriable step may not be refused. Keep the deadline: the reconciler asks again, with a new id.
            log.warning("saga.retriable_refused", saga=instance.saga_id, step=step.name, reason=reply.reason)
            waiting = replace(instance, awaited_command=None)
            self._steps.save(waiting, uow, f"refused {reply.reason}", data)
        else:
            data = step.on_failure(data, reply) if step.on_failure else data
            instance = replace(instance, state=SagaState.COMPENSATING)
            instance = noted(instance, step.name, f"failed {reply.reason}", self._steps.now())
            await self._steps.go_back(definition, instance, data, index - 1, uow)

    async def _on_compensated(
        self, definition: Saga[Any], instance: SagaInstance, data: Any, index: int, reply: Reply, uow: UnitOfWork
    ) -> None:
        if isinstance(reply, Failure):
            log.warning("saga.compensation_refused", saga=instance.saga_id, step=instance.step, reason=reply.reason)
            self._steps.save(replace(instance, awaited_command=None), uow, f"compensation refused {reply.reason}", data)
            return
        instance = noted(instance, instance.step, "compensated", self._steps.now())
        await self._steps.go_back(definition, instance, data, index - 1, uow)

    # -- when no answer comes -------------------------------------------------------------------------------------

    def can_turn_back(self, instance: SagaInstance) -> bool:
        """Whether this instance is before its pivot, or awaits a pivot that can be taken back unanswered."""
        step = self._step(instance)
        return instance.state is SagaState.RUNNING and step.can_time_out

    def is_stuck(self, instance: SagaInstance) -> bool:
        """Whether it can only go on asking, and has asked more often than its definition calls patient; or nobody knows
        its definition any more."""
        if (instance.type, instance.definition_version) not in self._definitions:
            return not instance.state.final
        asked_enough = instance.attempts > self.definition(instance).reminders
        return not instance.state.final and asked_enough and not self.can_turn_back(instance)

    def ask_again(self, instance: SagaInstance, uow: UnitOfWork, why: str, *, new_id: bool = False) -> None:
        """Send the awaited command once more, with its own id: a participant that has handled that id drops the
        repetition, so this can never do harm.

        After the refusal of what cannot be refused, or with ``new_id``, it gets an id of its own: the participant is
        to do it for real, which it must be able to bear twice. From then on the answer to the earlier id is dropped;
        the participant answers the new one as well."""
        definition, step = self.definition(instance), self._step(instance)
        make = step.taken_back_by if instance.state is SagaState.COMPENSATING else step.command
        if make is None:
            raise LookupError(f"saga {instance.saga_id} waits in the step {step.name}, which asks nothing")
        command = make(codec.decode(instance.data, definition.data))
        awaited = self._steps.send(definition, instance, command, None if new_id else instance.awaited_command, uow)
        RESENT.labels(instance.type).inc()
        wait = definition.patience.total_seconds() * 2 ** min(instance.attempts, 5)
        again = replace(instance, awaited_command=awaited, due_in=wait, attempts=instance.attempts + 1)
        if self.is_stuck(again) and not self.is_stuck(instance):
            log.error("saga.stuck", saga=instance.saga_id, step=step.name, state=instance.state.value)
        self._steps.save(again, uow, why)

    async def turn_back(self, instance: SagaInstance, reason: str, uow: UnitOfWork) -> None:
        """Turn to compensation although no answer has come; when it comes later, it is dropped.

        Nobody knows whether the awaited command was carried out, so its step is taken back as well. Raises ValueError
        for an instance that cannot turn back."""
        if not self.can_turn_back(instance):
            raise ValueError(f"saga {instance.saga_id} cannot turn back from the step {instance.step}")
        definition, step = self.definition(instance), self._step(instance)
        data = codec.decode(instance.data, definition.data)
        data = step.on_failure(data, Failure(reason=reason)) if step.on_failure else data
        TURNED.labels(instance.type).inc()
        instance = replace(instance, state=SagaState.COMPENSATING)
        instance = noted(instance, step.name, f"turned back {reason}", self._steps.now())
        await self._steps.go_back(definition, instance, data, definition.index(step.name), uow)

    def _step(self, instance: SagaInstance) -> SagaStep[Any]:
        definition = self.definition(instance)
        return definition.steps[definition.index(instance.step)]
