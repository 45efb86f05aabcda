"""Bugs of the sagas."""

import asyncio
import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ftgo_messaging.messages import message as m
from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.sagas import recovery, timeouts
from ftgo_messaging.sagas.definition import Saga
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.transaction.transactions import Operation
from sqlalchemy import text


def be_impatient(seconds: float) -> None:
    """No bug: commands are asked for again after that time, and the reconciler looks often."""
    check, forever = Saga.__post_init__, recovery.reconcile_forever

    def impatient(self: Any) -> None:
        object.__setattr__(self, "patience", timedelta(seconds=seconds))
        check(self)

    async def often(orchestrator: Any, transactions: Any, every: float = 0.2) -> None:
        await forever(orchestrator, transactions, every)

    Saga.__post_init__ = impatient  # type: ignore[method-assign]
    recovery.reconcile_forever = often


def reply_without_match() -> None:
    """Take every reply as the answer to whatever is awaited now."""
    on_reply = Orchestrator.on_reply

    async def taking_all(self: Any, reply: Any, uow: Any, message: Any) -> None:
        instance = await uow.find(self.instances, message.headers.get(m.SAGA_ID, ""))
        if instance is not None and instance.awaited_command is not None:
            message = replace(message, headers={**message.headers, m.IN_REPLY_TO: instance.awaited_command})
        await on_reply(self, reply, uow, message)

    Orchestrator.on_reply = taking_all  # type: ignore[method-assign]


def timeout_without_lock() -> None:
    """The reconciler reads an instance, thinks for a moment, and writes it, without holding its row."""
    overdue_instances = text("SELECT saga_id FROM saga_instances WHERE NOT finished AND deadline < now() LIMIT 4")

    async def remind_one(orchestrator: Any, transactions: Any, saga_id: str) -> Any:
        unlocked = copy.copy(orchestrator)
        unlocked.instances = replace(orchestrator.instances, lock=False)
        # The steps write instances under the same kind: under another, theirs would be new ones to the unit of work.
        unlocked._steps = copy.copy(orchestrator._steps)
        assert unlocked._steps._instances is orchestrator.instances
        unlocked._steps._instances = unlocked.instances

        async def body(uow: Any) -> bool:
            await uow.load([(unlocked.instances, saga_id)])
            await asyncio.sleep(0.3)
            return await timeouts.remind(unlocked, saga_id, uow)

        return await transactions.run_operation(Operation(body))

    async def reconcile(orchestrator: Any, transactions: Any, limit: int = 4) -> int:
        async with connect(transactions.engine) as connection:
            overdue = await connection.execute(overdue_instances)
        reminded = await asyncio.gather(*(remind_one(orchestrator, transactions, str(row[0])) for row in overdue))
        return sum(reminded)

    recovery.reconcile = reconcile


def recovery_at_start_only() -> None:
    """Look for sagas that hang once, when the service starts."""

    async def once(orchestrator: Any, transactions: Any, every: float = 0.2) -> None:
        await recovery.reconcile(orchestrator, transactions)
        await asyncio.Event().wait()

    recovery.reconcile_forever = once
