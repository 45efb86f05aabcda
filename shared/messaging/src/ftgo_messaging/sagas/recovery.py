"""The reconciler: a loop, not a start-up step, for what hangs may begin to hang at any time."""

import asyncio
import random
from collections import Counter as Tally
from dataclasses import replace

import structlog
from prometheus_client import Gauge
from sqlalchemy import text

from ftgo_messaging.connection import connect
from ftgo_messaging.errors import is_transient
from ftgo_messaging.failpoints import failpoint
from ftgo_messaging.sagas.instance import SagaInstance, SagaState
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.sagas.timeouts import remind
from ftgo_messaging.transactions import Step, Transactions
from ftgo_messaging.unit_of_work import UnitOfWork

log = structlog.get_logger("ftgo.saga")

STUCK = Gauge("ftgo_sagas_stuck", "Sagas that only go on asking, and have asked often: see them", ["type", "state"])

_BATCH = 100
_OVERDUE = text(
    "SELECT saga_id FROM saga_instances WHERE NOT finished AND deadline < now() ORDER BY deadline LIMIT :limit"
)
# Whoever holds the row is moving this very saga on, or stands still with it: go to the next one, do not wait.
_CLAIM = text(
    "SELECT 1 FROM saga_instances WHERE saga_id = :saga_id AND NOT finished AND deadline < now() FOR UPDATE SKIP LOCKED"
)
_POSTPONE = text("UPDATE saga_instances SET deadline = now() + interval '1 minute' WHERE saga_id = :saga_id")
_ASKED_OFTEN = text(
    "SELECT saga_id FROM saga_instances WHERE NOT finished AND attempts > 1 ORDER BY attempts DESC LIMIT 1000"
)


async def reconcile(orchestrator: Orchestrator, transactions: Transactions, limit: int = _BATCH) -> int:
    """Deal with up to ``limit`` overdue instances, each in a transaction of its own. Returns for how many of them
    something was done.

    Any number of processes may do this at once: the row lock lets one of them remind, and then the deadline is a new
    one. An instance that cannot be dealt with (its definition is gone, say) is told to the log and put off by a
    minute, so that those behind it have their turn. Raises transient errors only; what was done before stays done."""
    async with connect(transactions.engine) as connection:
        overdue = [str(row[0]) for row in await connection.execute(_OVERDUE, {"limit": limit})]
    if overdue:
        failpoint("reconciler.found")
    reminded = 0
    for saga_id in overdue:
        try:
            reminded += await _remind_one(orchestrator, transactions, saga_id)
        except Exception as error:
            if is_transient(error):
                raise
            log.error("saga.cannot_be_reminded", saga=saga_id, exc_info=error)
            async with connect(transactions.engine) as connection:
                await connection.execute(_POSTPONE, {"saga_id": saga_id})
        failpoint("reconciler.reminded")
    return reminded


async def _remind_one(orchestrator: Orchestrator, transactions: Transactions, saga_id: str) -> bool:
    async def step(uow: UnitOfWork) -> bool:
        if not await uow.execute(_CLAIM, {"saga_id": saga_id}):
            return False
        return await remind(orchestrator, saga_id, uow)

    return await transactions.run_step(Step(step))


async def count_stuck(orchestrator: Orchestrator, transactions: Transactions) -> int:
    """Set the gauge of stuck sagas, and return their number. Locks nothing."""

    unlocked = replace(orchestrator.instances, lock=False)

    async def step(uow: UnitOfWork) -> list[SagaInstance]:
        ids = [str(row[0]) for row in await uow.execute(_ASKED_OFTEN)]
        await uow.load((unlocked, saga_id) for saga_id in ids)
        return [instance for saga_id in ids if (instance := uow.peek(unlocked, saga_id))]

    asked_often = await transactions.run_step(Step(step))
    stuck = Tally((i.type, i.state.value) for i in asked_often if orchestrator.is_stuck(i))
    for type in orchestrator.types:
        for state in (SagaState.RUNNING.value, SagaState.COMPENSATING.value):
            STUCK.labels(type, state).set(stuck[type, state])
    return stuck.total()


async def reconcile_forever(orchestrator: Orchestrator, transactions: Transactions, every: float = 5.0) -> None:
    """Remind overdue sagas every few seconds, until cancelled. Survives outages of the database. Several instances
    of a service may run it."""
    while True:
        await asyncio.sleep(every * random.uniform(0.8, 1.2))
        try:
            while reminded := await reconcile(orchestrator, transactions):
                log.warning("saga.reminded", sagas=reminded)
                if reminded < _BATCH:
                    break
            await count_stuck(orchestrator, transactions)
        except Exception as error:
            log.warning("saga.reconcile_failed", error=repr(error))
