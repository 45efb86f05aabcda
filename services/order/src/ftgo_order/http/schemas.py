"""What the REST API of orders takes and gives."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from ftgo_service_kit.schemas import ABSENT_IF_BLANK, ApiModel, MoneyOut, Text, Time, UuidStr
from pydantic import Field

from ftgo_order.adapters.replicas import ConsumerReplica, RestaurantReplica
from ftgo_order.application.create_order import CreateOrder
from ftgo_order.domain.order import Address, Delivery, Order, OrderLineItem, OrderState, Refusal, Revision
from ftgo_order.domain.pricing import MAX_LINES, MAX_QUANTITY, RequestedLineItem

WHEN_THERE = Field(exclude_if=lambda value: value is None)
"""Left out of an answer when there is nothing to say, everywhere in the same way."""


class AddressRequest(ApiModel):
    street1: Text
    street2: Annotated[Text | None, ABSENT_IF_BLANK] = None
    city: Text
    state: Text
    zip: Text


class LineItemRequest(ApiModel):
    menu_item_id: Text
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY, strict=True)]


LineItems = Annotated[list[LineItemRequest], Field(min_length=1, max_length=MAX_LINES)]


class OrderRequest(ApiModel):
    consumer_id: UuidStr
    restaurant_id: UuidStr
    delivery_time: Time
    delivery_address: AddressRequest
    line_items: LineItems

    def command(self) -> CreateOrder:
        a = self.delivery_address
        address = Address(a.street1, a.street2, a.city, a.state, a.zip)
        return CreateOrder(
            self.consumer_id,
            self.restaurant_id,
            Delivery(self.delivery_time, address),
            requested(self.line_items),
        )


class RevisionRequest(ApiModel):
    """All lines that the order is to have, not only those that change."""

    revised_order_line_items: LineItems


def requested(items: Sequence[LineItemRequest]) -> tuple[RequestedLineItem, ...]:
    return tuple(RequestedLineItem(item.menu_item_id, item.quantity) for item in items)


class OrderAccepted(ApiModel):
    """The answer to POST. A repetition with the same Idempotency-Key gets the very same answer."""

    order_id: UuidStr
    state: OrderState
    order_total: MoneyOut


class AddressView(ApiModel):
    street1: str
    street2: Annotated[str | None, WHEN_THERE] = None
    city: str
    state: str
    zip: str


class LineItemView(ApiModel):
    menu_item_id: str
    name: str
    price: MoneyOut
    quantity: int


class RevisionView(ApiModel):
    order_total: MoneyOut
    line_items: list[LineItemView]


class RefusalView(ApiModel):
    reason: str
    service: str


class OrderView(ApiModel):
    """``restaurantName`` is that of the time of the order; orders of the first releases have none. ``revision`` is
    there while the order is in REVISION_PENDING, ``rejection`` when it is REJECTED. ``changeRefusal``: it is APPROVED
    because the last cancellation or revision was refused; gone when the next begins."""

    order_id: UuidStr
    state: OrderState
    order_total: MoneyOut
    consumer_id: UuidStr
    restaurant_id: UuidStr
    restaurant_name: Annotated[str | None, WHEN_THERE] = None
    delivery_time: datetime
    delivery_address: AddressView
    line_items: list[LineItemView]
    revision: Annotated[RevisionView | None, WHEN_THERE] = None
    rejection: Annotated[RefusalView | None, WHEN_THERE] = None
    change_refusal: Annotated[RefusalView | None, WHEN_THERE] = None
    version: int


class OrderPage(ApiModel):
    orders: list[OrderView]
    next: str | None


class NameView(ApiModel):
    first_name: str
    last_name: str


class ConsumerView(ApiModel):
    """The consumer as this service knows it, as of ``version``."""

    consumer_id: UuidStr
    name: NameView
    status: str
    version: int


class MenuItemView(ApiModel):
    id: str
    name: str
    price: MoneyOut


class MenuView(ApiModel):
    menu_items: list[MenuItemView]


class RestaurantView(ApiModel):
    """The restaurant as this service knows it, as of ``version``."""

    id: UuidStr
    name: str
    menu: MenuView
    version: int


def order_view(order: Order) -> OrderView:
    return OrderView(
        order_id=order.id,
        state=order.state,
        order_total=order.order_total,
        consumer_id=order.consumer_id,
        restaurant_id=order.restaurant_id,
        restaurant_name=order.restaurant_name,
        delivery_time=order.delivery.time,
        delivery_address=_address(order.delivery.address),
        line_items=_lines(order.line_items),
        revision=_revision(order.revision) if order.revision else None,
        rejection=_refusal(order.rejection) if order.rejection else None,
        change_refusal=_refusal(order.change_refusal) if order.change_refusal else None,
        version=order.version,
    )


def _address(a: Address) -> AddressView:
    return AddressView(street1=a.street1, street2=a.street2, city=a.city, state=a.state, zip=a.zip)


def _revision(revision: Revision) -> RevisionView:
    return RevisionView(order_total=revision.order_total, line_items=_lines(revision.line_items))


def _refusal(refusal: Refusal) -> RefusalView:
    return RefusalView(reason=refusal.reason, service=refusal.service)


def _lines(items: tuple[OrderLineItem, ...]) -> list[LineItemView]:
    return [LineItemView(menu_item_id=i.menu_item_id, name=i.name, price=i.price, quantity=i.quantity) for i in items]


def consumer_view(consumer: ConsumerReplica) -> ConsumerView:
    name = NameView(first_name=consumer.first_name, last_name=consumer.last_name)
    return ConsumerView(consumer_id=consumer.id, name=name, status=consumer.status, version=consumer.version)


def restaurant_view(restaurant: RestaurantReplica) -> RestaurantView:
    items = [MenuItemView(id=i.id, name=i.name, price=i.price) for i in restaurant.menu.values()]
    menu = MenuView(menu_items=items)
    return RestaurantView(id=restaurant.id, name=restaurant.name, menu=menu, version=restaurant.version)
