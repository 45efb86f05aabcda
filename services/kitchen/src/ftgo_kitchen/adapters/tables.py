"""The tables of the kitchen service, and how restaurants and tickets are kept in them."""

from collections.abc import Mapping
from typing import Any

from ftgo_messaging import Aggregates, messaging_tables
from ftgo_messaging.messages import codec
from sqlalchemy import Column, DateTime, Index, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from ftgo_kitchen.domain.restaurant import Address, MenuItem, Restaurant
from ftgo_kitchen.domain.ticket import LineItem, Ticket, TicketState

METADATA = MetaData()
messaging_tables(METADATA)

restaurants = Table(
    "restaurants",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("name", Text, nullable=False),
    Column("address", JSON, nullable=False),
    Column("menu", JSON, nullable=False),
    Column("version", Integer, nullable=False),
)

tickets = Table(
    "tickets",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("restaurant_id", Uuid(as_uuid=False), nullable=True),
    Column("state", Text, nullable=False),
    Column("line_items", JSON, nullable=False),
    Column("before", Text, nullable=True),
    Column("ready_by", DateTime(timezone=True), nullable=True),
    Column("change", Text, nullable=True),
    Column("closed", JSON, nullable=False),
    Column("version", Integer, nullable=False),
)
# The list of a restaurant's tickets, page by page.
Index("tickets_of_restaurant", tickets.c.restaurant_id, tickets.c.id)

ticket_history = Table(
    "ticket_history",
    METADATA,
    Column("ticket_id", Uuid(as_uuid=False), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
"""Append-only: one row per version of a ticket."""


def _json(value: Any) -> str:
    return codec.encode(value).decode()


def _restaurant_from_row(row: Mapping[str, Any]) -> Restaurant:
    return Restaurant(
        id=str(row["id"]),
        name=row["name"],
        address=codec.decode(row["address"], Address),
        menu=codec.decode(row["menu"], tuple[MenuItem, ...]),
        version=row["version"],
    )


def _restaurant_to_row(restaurant: Restaurant) -> dict[str, Any]:
    return {
        "id": restaurant.id,
        "name": restaurant.name,
        "address": _json(restaurant.address),
        "menu": _json(restaurant.menu),
        "version": restaurant.version,
    }


def _ticket_from_row(row: Mapping[str, Any]) -> Ticket:
    return Ticket(
        id=str(row["id"]),
        restaurant_id=None if row["restaurant_id"] is None else str(row["restaurant_id"]),
        state=TicketState(row["state"]),
        line_items=codec.decode(row["line_items"], tuple[LineItem, ...]),
        before=None if row["before"] is None else TicketState(row["before"]),
        ready_by=row["ready_by"],
        change=row["change"],
        closed=codec.decode(row["closed"], tuple[str, ...]),
        version=row["version"],
    )


def _ticket_to_row(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.id,
        "restaurant_id": ticket.restaurant_id,
        "state": ticket.state.value,
        "line_items": _json(ticket.line_items),
        "before": None if ticket.before is None else ticket.before.value,
        "ready_by": ticket.ready_by,
        "change": ticket.change,
        "closed": _json(ticket.closed),
        "version": ticket.version,
    }


RESTAURANTS = Aggregates(restaurants, "id", _restaurant_from_row, _restaurant_to_row)
# Creating a ticket changes nothing of the restaurant, so tickets of one restaurant need not wait for each other.
RESTAURANTS_TO_READ = Aggregates(restaurants, "id", _restaurant_from_row, _restaurant_to_row, lock=False)
TICKETS = Aggregates(tickets, "id", _ticket_from_row, _ticket_to_row)
