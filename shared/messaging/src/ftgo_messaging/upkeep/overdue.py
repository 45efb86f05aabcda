"""Rows whose time is over: found, and dealt with one by one. Sagas and gatherings both wait in rows, with a deadline.

Any number of processes may do this at once. The deadline is the database's, and so is the clock.
"""

from collections.abc import Awaitable, Callable
from functools import cache

import structlog
from sqlalchemy import Table, TextClause, text

from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.runtime.errors import is_outage
from ftgo_messaging.runtime.failpoints import failpoint
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

log = structlog.get_logger("ftgo.overdue")

BATCH = 100

Deal = Callable[[str, UnitOfWork], Awaitable[bool]]


@cache
def _statements(table: Table, key: str) -> tuple[TextClause, TextClause, TextClause]:
    due = "NOT finished AND deadline < now()"
    return (
        text(f"SELECT {key} FROM {table.name} WHERE {due} ORDER BY deadline LIMIT :limit"),  # noqa: S608 - our own names
        # Whoever holds the row is moving it on this very moment, or stands still with it: do not wait, take the next.
        text(f"SELECT 1 FROM {table.name} WHERE {key} = :key AND {due} FOR UPDATE SKIP LOCKED"),  # noqa: S608
        text(f"UPDATE {table.name} SET deadline = now() + interval '1 minute' WHERE {key} = :key"),  # noqa: S608
    )


async def deal_with_overdue(table: Table, key: str, deal: Deal, transactions: Transactions, limit: int = BATCH) -> int:
    """Call ``deal`` for up to ``limit`` overdue rows, the most overdue first, each locked and in a transaction of its
    own. Returns how many of them it has dealt with.

    The table has the columns ``finished`` and ``deadline``. A row that cannot be dealt with is told to the log and put
    off by a minute, so that those behind it have their turn. Raises what is an outage, and nothing else; what was done
    before stays done."""
    find, claim, postpone = _statements(table, key)
    async with connect(transactions.engine) as connection:
        overdue = [str(row[0]) for row in await connection.execute(find, {"limit": limit})]
    if overdue:
        failpoint("reconciler.found")
    dealt = 0
    for row_key in overdue:

        async def body(uow: UnitOfWork, row_key: str = row_key) -> bool:
            return bool(await uow.execute(claim, {"key": row_key})) and await deal(row_key, uow)

        try:
            dealt += await transactions.run_operation(Operation(body))
        except Exception as error:
            if is_outage(error):
                raise
            log.error("overdue.failed", table=table.name, key=row_key, exc_info=error)
            async with connect(transactions.engine) as connection:
                await connection.execute(postpone, {"key": row_key})
        failpoint("reconciler.reminded")
    return dealt
