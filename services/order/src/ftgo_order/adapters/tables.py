"""The tables of the order service, and how orders and idempotency keys are kept in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ftgo_contracts.money import Money
from ftgo_messaging import Aggregates, messaging_tables
from ftgo_messaging.messages import codec
from ftgo_messaging.sagas.instance import saga_instances_table
from sqlalchemy import Column, DateTime, Index, Integer, MetaData, Numeric, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from ftgo_order.domain.order import Address, Delivery, Order, OrderLineItem, OrderState, Refusal, Revision

METADATA = MetaData()
messaging_tables(METADATA)
SAGA_INSTANCES = saga_instances_table(METADATA)

orders = Table(
    "orders",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("consumer_id", Uuid(as_uuid=False), nullable=False),
    Column("restaurant_id", Uuid(as_uuid=False), nullable=False),
    Column("restaurant_name", Text, nullable=True),
    Column("state", Text, nullable=False),
    Column("line_items", JSON, nullable=False),
    Column("order_total", Numeric(12, 2), nullable=False),
    Column("delivery_time", DateTime(timezone=True), nullable=False),
    Column("delivery_address", JSON, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("revision", JSON, nullable=True),
    Column("rejection", JSON, nullable=True),
    Column("change_refusal", JSON, nullable=True),
    Column("version", Integer, nullable=False),
)
# The list of a consumer's orders, page by page.
Index("orders_of_consumer", orders.c.consumer_id, orders.c.id)

order_history = Table(
    "order_history",
    METADATA,
    Column("order_id", Uuid(as_uuid=False), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("rejection", JSON, nullable=True),
    Column("change_refusal", JSON, nullable=True),
)
"""Append-only: one row per version of an order. What the event stream sends."""

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("consumer_id", Uuid(as_uuid=False), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("order_id", Uuid(as_uuid=False), nullable=False),
    Column("order_total", Numeric(12, 2), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

Index("idempotency_keys_at", idempotency_keys.c.at)  # for their retention

consumer_replicas = Table(
    "consumer_replicas",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("first_name", Text, nullable=False),
    Column("last_name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
)

restaurant_replicas = Table(
    "restaurant_replicas",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("name", Text, nullable=False),
    Column("menu", JSON, nullable=False),
    Column("version", Integer, nullable=False),
)


def optional_json(value: Any) -> str | None:
    """JSON text for a JSON column that may be null."""
    return None if value is None else codec.encode(value).decode()


def from_optional_json(text: str | None, cls: type[Any]) -> Any:
    return None if text is None else codec.decode(text, cls)


def _order_from_row(row: Mapping[str, Any]) -> Order:
    return Order(
        id=str(row["id"]),
        consumer_id=str(row["consumer_id"]),
        restaurant_id=str(row["restaurant_id"]),
        restaurant_name=row["restaurant_name"],
        state=OrderState(row["state"]),
        line_items=codec.decode(row["line_items"], tuple[OrderLineItem, ...]),
        order_total=Money.of(row["order_total"]),
        delivery=Delivery(row["delivery_time"], codec.decode(row["delivery_address"], Address)),
        fingerprint=row["fingerprint"],
        revision=from_optional_json(row["revision"], Revision),
        rejection=from_optional_json(row["rejection"], Refusal),
        change_refusal=from_optional_json(row["change_refusal"], Refusal),
        version=row["version"],
    )


def _order_to_row(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "consumer_id": order.consumer_id,
        "restaurant_id": order.restaurant_id,
        "restaurant_name": order.restaurant_name,
        "state": order.state.value,
        "line_items": codec.encode(order.line_items).decode(),
        "order_total": order.order_total.decimal,
        "delivery_time": order.delivery.time,
        "delivery_address": codec.encode(order.delivery.address).decode(),
        "fingerprint": order.fingerprint,
        "revision": optional_json(order.revision),
        "rejection": optional_json(order.rejection),
        "change_refusal": optional_json(order.change_refusal),
        "version": order.version,
    }


ORDERS = Aggregates(orders, "id", _order_from_row, _order_to_row)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request that was accepted, and what it was answered. ``key`` starts with the consumer's id, so that two
    consumers never share one. ``order_total`` is the total at that time: a repetition gets the same answer."""

    key: str
    consumer_id: str
    fingerprint: str
    order_id: str
    order_total: Money
    at: datetime


def _key_from_row(row: Mapping[str, Any]) -> IdempotencyKey:
    return IdempotencyKey(
        key=row["key"],
        consumer_id=str(row["consumer_id"]),
        fingerprint=row["fingerprint"],
        order_id=str(row["order_id"]),
        order_total=Money.of(row["order_total"]),
        at=row["at"],
    )


def _key_to_row(key: IdempotencyKey) -> dict[str, Any]:
    return {
        "key": key.key,
        "consumer_id": key.consumer_id,
        "fingerprint": key.fingerprint,
        "order_id": key.order_id,
        "order_total": key.order_total.decimal,
        "at": key.at,
    }


# Never changed after its insert, so there is nothing to lock.
IDEMPOTENCY_KEYS = Aggregates(idempotency_keys, "key", _key_from_row, _key_to_row, lock=False)
