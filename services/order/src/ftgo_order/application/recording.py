"""What every change of an order leaves behind: the order, a row of its history, and often an event."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ftgo_contracts import types as contract
from ftgo_contracts.order import events
from ftgo_messaging import UnitOfWork

from ftgo_order.adapters.tables import ORDERS, optional_json, order_history
from ftgo_order.domain.order import Address, Order, OrderLineItem


def record(order: Order, uow: UnitOfWork) -> None:
    """Keep the order's new version and append it to the history."""
    uow.save(ORDERS, order)
    uow.append(
        order_history,
        {
            "order_id": order.id,
            "version": order.version,
            "state": order.state.value,
            "at": datetime.now(UTC),
            "rejection": optional_json(order.rejection),
            "change_refusal": optional_json(order.change_refusal),
        },
    )


def publish(event: type[events.OrderEvent], order: Order, uow: UnitOfWork, **details: Any) -> None:
    """Publish an event with what all order events tell, and ``details``."""
    body = event(
        order_id=order.id,
        consumer_id=order.consumer_id,
        restaurant_id=order.restaurant_id,
        order_total=order.order_total,
        **details,
    )
    uow.publish(body, subject=order.id, version=order.version)


def contract_lines(items: Iterable[OrderLineItem]) -> tuple[events.OrderLineItem, ...]:
    """Lines in the words of the contract."""
    return tuple(events.OrderLineItem(i.menu_item_id, i.name, i.price, i.quantity, i.total) for i in items)


def contract_address(a: Address) -> contract.Address:
    """An address in the words of the contract."""
    return contract.Address(street1=a.street1, street2=a.street2, city=a.city, state=a.state, zip=a.zip)
