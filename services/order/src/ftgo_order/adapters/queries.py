"""What HTTP reads. Nothing here locks or waits."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ftgo_messaging import Aggregates
from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.transaction import rows
from sqlalchemy import JSON, Column, Text, cast, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_order.adapters.tables import ORDERS, from_optional_json, orders
from ftgo_order.domain.order import Order, OrderState, Refusal

A = TypeVar("A")

_VERSIONS = text("SELECT id, version FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))")
_NEWER = text(
    "SELECT h.order_id, h.version, h.state, h.at, CAST(h.rejection AS text) AS rejection, "
    "CAST(h.change_refusal AS text) AS change_refusal "
    "FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS integer[])) AS a (order_id, version) "
    "JOIN order_history h ON h.order_id = a.order_id AND h.version > a.version ORDER BY h.order_id, h.version"
)


@dataclass(frozen=True, slots=True)
class OrderChange:
    """A row of the history: the order came to ``state`` with ``version``."""

    order_id: str
    version: int
    state: OrderState
    at: datetime
    rejection: Refusal | None
    change_refusal: Refusal | None


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


async def find_all(kind: Aggregates[A], keys: Iterable[str], engine: AsyncEngine) -> dict[str, A]:
    """The newest committed states of those that there are, by key."""
    async with connect(engine) as connection:
        found = await connection.execute(rows.select_by_key(kind.table, kind.key, False), {"keys": sorted(keys)})
    return {str(row[kind.key]): kind.from_row(dict(row)) for row in found}


async def versions(order_ids: Iterable[str], engine: AsyncEngine) -> dict[str, int]:
    """At which version the orders are."""
    async with connect(engine) as connection:
        return {str(row[0]): row[1] for row in await connection.execute(_VERSIONS, {"ids": sorted(order_ids)})}


async def changes_since(
    asked: Iterable[tuple[str, int]], engine: AsyncEngine
) -> dict[tuple[str, int], list[OrderChange]]:
    """What happened to each order after each version that is asked for, oldest first, by one statement."""
    since: dict[str, list[int]] = defaultdict(list)
    for order_id, version in asked:
        since[order_id].append(version)
    parameters = {"ids": list(since), "versions": [min(versions) for versions in since.values()]}
    async with connect(engine) as connection:
        found = [_change(row) for row in await connection.execute(_NEWER, parameters)]
    answers: dict[tuple[str, int], list[OrderChange]] = defaultdict(list)
    for change in found:
        for version in since[change.order_id]:
            if change.version > version:
                answers[change.order_id, version].append(change)
    return answers


def _as_text(column: Column[Any]) -> Any:
    # The codec decodes JSON, once and into the right class; the driver is not to do it before.
    return cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column


def _change(row: Mapping[str, Any]) -> OrderChange:
    return OrderChange(
        order_id=str(row["order_id"]),
        version=row["version"],
        state=OrderState(row["state"]),
        at=row["at"],
        rejection=from_optional_json(row["rejection"], Refusal),
        change_refusal=from_optional_json(row["change_refusal"], Refusal),
    )
