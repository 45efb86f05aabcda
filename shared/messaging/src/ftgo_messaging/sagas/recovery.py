"""The reconciler: a loop, not a start-up step, for what hangs may begin to hang at any time."""

import asyncio
import random

import structlog

from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.transactions import Transactions

log = structlog.get_logger("ftgo.saga")


async def reconcile_forever(orchestrator: Orchestrator, transactions: Transactions, every: float = 5.0) -> None:
    """Remind overdue sagas every few seconds, until cancelled. Survives outages of the database. Several instances
    of a service may run it: the row lock and the deadline let one of them send."""
    while True:
        await asyncio.sleep(every * random.uniform(0.8, 1.2))
        try:
            reminded = await orchestrator.reconcile(transactions)
        except Exception as error:
            log.warning("saga.reconcile_failed", error=repr(error))
        else:
            if reminded:
                log.warning("saga.reminded", sagas=reminded)
