"""What HTTP reads."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ftgo_messaging.transaction import rows
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ftgo_kitchen.adapters.tables import RESTAURANTS, TICKETS, ticket_history, tickets
from ftgo_kitchen.domain.restaurant import Restaurant
from ftgo_kitchen.domain.ticket import Ticket, TicketState


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """A ticket and its states with their times, oldest first."""

    ticket: Ticket
    history: list[tuple[TicketState, datetime]]


async def restaurant_by_id(restaurant_id: str, engine: AsyncEngine) -> Restaurant | None:
    statement = rows.select_by_key(RESTAURANTS.table, RESTAURANTS.key, False)
    async with engine.connect() as connection:
        row = (await connection.execute(statement, {"keys": [restaurant_id]})).mappings().one_or_none()
    return None if row is None else RESTAURANTS.from_row(dict(row))


async def tickets_by_id(ids: Sequence[str], engine: AsyncEngine) -> list[TicketRecord]:
    """Those of the tickets that exist, in the order of their ids."""
    async with engine.connect() as connection:
        return await _records(ids, connection)


async def page_of_tickets(
    restaurant_id: str | None, state: TicketState | None, after: str | None, limit: int, engine: AsyncEngine
) -> list[TicketRecord]:
    """Up to ``limit`` tickets with ids greater than ``after``, in the order of their ids: oldest first."""
    query: Any = select(tickets.c.id).order_by(tickets.c.id).limit(limit)
    if restaurant_id is not None:
        query = query.where(tickets.c.restaurant_id == restaurant_id)
    if state is not None:
        query = query.where(tickets.c.state == state.value)
    if after is not None:
        query = query.where(tickets.c.id > after)
    async with engine.connect() as connection:
        return await _records([str(row[0]) for row in await connection.execute(query)], connection)


async def _records(ids: Sequence[str], connection: AsyncConnection) -> list[TicketRecord]:
    if not ids:
        return []
    found = await connection.execute(rows.select_by_key(TICKETS.table, TICKETS.key, False), {"keys": list(ids)})
    history: dict[str, list[tuple[TicketState, datetime]]] = defaultdict(list)
    states = select(ticket_history).where(ticket_history.c.ticket_id.in_(ids)).order_by(ticket_history.c.version)
    records = [TICKETS.from_row(dict(row)) for row in found.mappings()]
    for row in (await connection.execute(states)).mappings():
        history[str(row["ticket_id"])].append((TicketState(row["state"]), row["at"]))
    return [TicketRecord(ticket, history[ticket.id]) for ticket in records]
