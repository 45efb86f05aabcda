"""Events of the Order service, keyed by the order's id."""

from datetime import datetime

import msgspec
from ftgo_messaging import DomainEvent

from ftgo_contracts.channels import ORDER_EVENTS
from ftgo_contracts.money import Money
from ftgo_contracts.types import Address, Id, Quantity


class OrderLineItem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``price`` is that of one portion. ``line_total``: since version 2 of the events."""

    menu_item_id: str
    name: str
    price: Money
    quantity: Quantity
    line_total: Money | None = None


class OrderEvent(DomainEvent, frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    consumer_id: Id
    restaurant_id: Id
    order_total: Money


@ORDER_EVENTS.carries("ftgo.order.OrderCreated", version=2)
class OrderCreated(OrderEvent, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All that a delivery or a view of orders needs. The restaurant's name and the delivery: since version 2."""

    line_items: tuple[OrderLineItem, ...]
    restaurant_name: str | None = None
    delivery_time: datetime | None = None
    delivery_address: Address | None = None


@ORDER_EVENTS.carries("ftgo.order.OrderApproved")
class OrderApproved(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@ORDER_EVENTS.carries("ftgo.order.OrderRejected")
class OrderRejected(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    reason: str
    service: str


@ORDER_EVENTS.carries("ftgo.order.OrderCancelled")
class OrderCancelled(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@ORDER_EVENTS.carries("ftgo.order.OrderRevisionProposed", version=2)
class OrderRevisionProposed(OrderEvent, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``order_total`` still holds. The revised lines: since version 2, and then never empty."""

    revised_total: Money
    revised_line_items: tuple[OrderLineItem, ...] = ()


@ORDER_EVENTS.carries("ftgo.order.OrderRevised", version=2)
class OrderRevised(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    line_items: tuple[OrderLineItem, ...]
