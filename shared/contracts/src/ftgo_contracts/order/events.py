"""Events of the Order service, keyed by the order's id."""

import msgspec
from ftgo_messaging.events import DomainEvent

from ftgo_contracts.channels import ORDER_EVENTS
from ftgo_contracts.money import Money
from ftgo_contracts.types import Id, Quantity


class OrderLineItem(msgspec.Struct, frozen=True, rename="camel"):
    menu_item_id: str
    name: str
    price: Money
    quantity: Quantity


class OrderEvent(DomainEvent, frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    consumer_id: Id
    restaurant_id: Id
    order_total: Money


@ORDER_EVENTS.carries("ftgo.order.OrderCreated")
class OrderCreated(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    line_items: tuple[OrderLineItem, ...]


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


@ORDER_EVENTS.carries("ftgo.order.OrderRevisionProposed")
class OrderRevisionProposed(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    revised_total: Money


@ORDER_EVENTS.carries("ftgo.order.OrderRevised")
class OrderRevised(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    line_items: tuple[OrderLineItem, ...]
