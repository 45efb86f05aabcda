"""What HTTP reads. Nothing here locks or waits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ftgo_messaging import codec, rows
from ftgo_messaging.aggregates import Aggregates
from sqlalchemy import JSON, Column, Text, cast, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_order.adapters.tables import ORDERS, order_history, orders
from ftgo_order.domain.order import Order, OrderState, Rejection

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class OrderChange:
    """A row of the history: the order came to ``state`` with ``version``."""

    order_id: str
    version: int
    state: OrderState
    at: datetime
    rejection: Rejection | None


async def find(kind: Aggregates[A], key: str, engine: AsyncEngine) -> A | None:
    """The newest committed state."""
    async with engine.connect() as connection:
        result = await connection.execute(rows.select_by_key(kind.table, kind.key, False), {"keys": [key]})
        row = result.mappings().one_or_none()
    return None if row is None else kind.from_row(dict(row))


async def orders_of(consumer_id: str, below: str | None, limit: int, engine: AsyncEngine) -> list[Order]:
    """At most ``limit`` orders of a consumer in descending order of id, those below an id if one is given. The ids
    that this service gives grow with time: the newest order comes first."""
    page = select(*map(_as_text, orders.columns)).where(orders.c.consumer_id == consumer_id)
    if below is not None:
        page = page.where(orders.c.id < below)
    async with engine.connect() as connection:
        found = (await connection.execute(page.order_by(orders.c.id.desc()).limit(limit))).mappings().all()
    return [ORDERS.from_row(dict(row)) for row in found]


async def changes_since(order_id: str, version: int, engine: AsyncEngine) -> Sequence[OrderChange]:
    """What happened to the order after ``version``, oldest first."""
    newer = (
        select(*map(_as_text, order_history.columns))
        .where(order_history.c.order_id == order_id, order_history.c.version > version)
        .order_by(order_history.c.version)
    )
    async with engine.connect() as connection:
        found = (await connection.execute(newer)).mappings().all()
    return [_change(dict(row)) for row in found]


def _as_text(column: Column[Any]) -> Any:
    # The codec decodes JSON, once and into the right class; the driver is not to do it before.
    return cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column


def _change(row: Mapping[str, Any]) -> OrderChange:
    return OrderChange(
        order_id=str(row["order_id"]),
        version=row["version"],
        state=OrderState(row["state"]),
        at=row["at"],
        rejection=None if row["rejection"] is None else codec.decode(row["rejection"], Rejection),
    )
