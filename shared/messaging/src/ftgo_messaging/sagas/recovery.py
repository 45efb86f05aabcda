"""The reconciler: a loop, not a start-up step, for what hangs may begin to hang at any time."""

from collections import Counter as Tally
from dataclasses import replace

import structlog
from prometheus_client import Gauge
from sqlalchemy import text

from ftgo_messaging.runtime.loops import periodic
from ftgo_messaging.sagas.instance import SagaInstance, SagaState
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.sagas.timeouts import remind
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.upkeep.overdue import BATCH, deal_with_overdue

log = structlog.get_logger("ftgo.saga")

STUCK = Gauge("ftgo_sagas_stuck", "Sagas that only go on asking, and have asked often: see them", ["type", "state"])

_ASKED_OFTEN = text(
    "SELECT saga_id FROM saga_instances WHERE NOT finished AND attempts > 1 ORDER BY attempts DESC LIMIT 1000"
)


async def reconcile(orchestrator: Orchestrator, transactions: Transactions, limit: int = BATCH) -> int:
    """Deal with up to ``limit`` overdue instances. Returns for how many of them something was done. What holds of
    ``deal_with_overdue`` holds here: any number of processes, none waits for another, a broken one delays none."""

    async def deal(saga_id: str, uow: UnitOfWork) -> bool:
        return await remind(orchestrator, saga_id, uow)

    return await deal_with_overdue(orchestrator.instances.table, "saga_id", deal, transactions, limit)


async def count_stuck(orchestrator: Orchestrator, transactions: Transactions) -> int:
    """Set the gauge of stuck sagas, and return their number. Locks nothing."""

    unlocked = replace(orchestrator.instances, lock=False)

    async def body(uow: UnitOfWork) -> list[SagaInstance]:
        ids = [str(row[0]) for row in await uow.execute(_ASKED_OFTEN)]
        await uow.load((unlocked, saga_id) for saga_id in ids)
        return [instance for saga_id in ids if (instance := uow.peek(unlocked, saga_id))]

    asked_often = await transactions.run_operation(Operation(body))
    stuck = Tally((i.type, i.state.value) for i in asked_often if orchestrator.is_stuck(i))
    for type in orchestrator.types:
        for state in (SagaState.RUNNING.value, SagaState.COMPENSATING.value):
            STUCK.labels(type, state).set(stuck[type, state])
    return stuck.total()


async def reconcile_forever(orchestrator: Orchestrator, transactions: Transactions, every: float = 5.0) -> None:
    """Remind overdue sagas every few seconds, until cancelled. Survives outages of the database. Several instances
    of a service may run it."""

    async def reconcile_all() -> None:
        while reminded := await reconcile(orchestrator, transactions):
            log.warning("saga.reminded", sagas=reminded)
            if reminded < BATCH:  # no mutant: what is left has its turn in the next round, seconds later
                break
        await count_stuck(orchestrator, transactions)

    await periodic("saga.reconcile", reconcile_all, every)
