"""What happens to an instance that waits too long, by itself or by an operator's hand.

Each of these is a transition under the lock of the instance's row, as a reply is. They write through the unit of work
like everything else: instance and outbox row in one transaction.
"""

from ftgo_messaging.runtime.errors import DomainError
from ftgo_messaging.sagas.instance import SagaInstance
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

TIMED_OUT = "TIMED_OUT"
BY_OPERATOR = "BY_OPERATOR"


class SagaNotFound(DomainError):
    """There is no saga with this id."""

    slug = "saga-not-found"
    status = 404


class SagaHasEnded(DomainError):
    """A saga that has ended is never begun again."""

    slug = "saga-has-ended"


class PastItsPivot(DomainError):
    """After the pivot a saga only goes forward."""

    slug = "saga-past-its-pivot"


async def remind(orchestrator: Orchestrator, saga_id: str, uow: UnitOfWork) -> bool:
    """If the time of the awaited command is over: send it again, or, when that was done often enough, turn back if
    that is possible. Returns whether anything was done.

    Half-way through its reminders it gets an id of its own. Repeated under the old one a command is harmless; but
    whoever has recorded that id without doing the work (a bug, or a forged message) would drop it for ever."""
    instance = await uow.find(orchestrator.instances, saga_id)
    if instance is None or instance.state.final or instance.due_in > 0:
        return False
    reminders = orchestrator.definition(instance).reminders
    if instance.attempts > reminders and orchestrator.can_turn_back(instance):
        await orchestrator.turn_back(instance, TIMED_OUT, uow)
    else:
        renewed = instance.attempts % max(1, (reminders + 1) // 2) == 0
        orchestrator.ask_again(instance, uow, "reminded, new id" if renewed else "reminded", new_id=renewed)
    return True


async def retry(orchestrator: Orchestrator, saga_id: str, uow: UnitOfWork, *, new_id: bool = False) -> None:
    """Send the awaited command again at once. Raises SagaNotFound or SagaHasEnded."""
    orchestrator.ask_again(await _unfinished(orchestrator, saga_id, uow), uow, "retried by operator", new_id=new_id)


async def compensate(orchestrator: Orchestrator, saga_id: str, uow: UnitOfWork) -> None:
    """Turn to compensation at once. Raises SagaNotFound, SagaHasEnded or PastItsPivot."""
    instance = await _unfinished(orchestrator, saga_id, uow)
    if not orchestrator.can_turn_back(instance):
        raise PastItsPivot(
            f"The saga {saga_id} is {instance.state} and awaits {instance.step!r}: "
            "it cannot turn back any more; `retry` asks again"
        )
    await orchestrator.turn_back(instance, BY_OPERATOR, uow)


async def _unfinished(orchestrator: Orchestrator, saga_id: str, uow: UnitOfWork) -> SagaInstance:
    instance = await uow.find(orchestrator.instances, saga_id)
    if instance is None:
        raise SagaNotFound(f"There is no saga {saga_id}.")
    if instance.state.final:
        raise SagaHasEnded(f"The saga {saga_id} has ended: {instance.state}.")
    return instance
