"""The steps of a saga, forward and back, until a command has to be awaited."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter

from ftgo_messaging.messages import codec
from ftgo_messaging.sagas.definition import Saga, SagaStep
from ftgo_messaging.sagas.instance import SagaInstance, SagaState, noted
from ftgo_messaging.transaction.aggregates import Aggregates
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

ENDED = Counter("ftgo_sagas_ended_total", "Sagas by how they ended", ["type", "state"])


def utc_now() -> datetime:
    return datetime.now(UTC)


class Steps:
    """Runs them in the caller's transaction, which holds the lock of the instance's row, and saves the instance."""

    def __init__(self, instances: Aggregates[SagaInstance], now: Callable[[], datetime] = utc_now) -> None:
        self.now = now
        self._instances = instances

    async def go_forward(
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
                instance = noted(instance, step.name, "done", self.now())
            index += 1
        self._end(instance, SagaState.COMPLETED, data, uow)

    async def go_back(
        self, definition: Saga[Any], instance: SagaInstance, data: Any, index: int, uow: UnitOfWork
    ) -> None:
        """Undo steps from ``index`` down to the first."""
        while index >= 0:
            step = definition.steps[index]
            if step.taken_back_by is not None:
                self._ask(definition, instance, step, step.taken_back_by(data), data, uow)
                return
            if step.undo is not None:
                await step.undo(data, uow)
                instance = noted(instance, step.name, "undone", self.now())
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
        awaited = self.send(definition, instance, command, None, uow)
        asked = replace(
            instance,
            step=step.name,
            awaited_command=awaited,
            due_in=definition.patience.total_seconds(),
            attempts=1,
        )
        self.save(asked, uow, f"asked {type(command).__name__}", data)

    @staticmethod
    def send(
        definition: Saga[Any], instance: SagaInstance, command: Any, message_id: str | None, uow: UnitOfWork
    ) -> str:
        return uow.send(
            command,
            reply_channel=definition.reply_channel,
            saga_type=definition.type,
            saga_id=instance.saga_id,
            message_id=message_id,
        )

    def _end(self, instance: SagaInstance, state: SagaState, data: Any, uow: UnitOfWork) -> None:
        ENDED.labels(instance.type, state.value).inc()
        self.save(replace(instance, state=state, awaited_command=None), uow, state.value.lower(), data)

    def save(self, instance: SagaInstance, uow: UnitOfWork, what: str, data: Any = None) -> None:
        if data is not None:
            instance = replace(instance, data=codec.encode(data))
        instance = noted(instance, instance.step, what, self.now())
        uow.save(self._instances, replace(instance, version=instance.version + 1))
