"""From what somebody asks for to lines with names and prices, by the menu as this service knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftgo_contracts.money import Money
from ftgo_messaging.errors import DomainError

from ftgo_order.domain.order import OrderLineItem, total_of

MAX_LINES = 50
MAX_QUANTITY = 100
MAX_TOTAL = Money.of("9999999999.99")
"""What the columns of all services can hold."""


class InvalidLineItems(DomainError):
    """Too many lines or none, a quantity out of range, or a total beyond all measure."""

    slug = "invalid-line-items"
    status = 422


class UnknownMenuItem(DomainError):
    """The restaurant's menu has no such item."""

    slug = "unknown-menu-item"
    status = 422


@dataclass(frozen=True, slots=True)
class MenuItem:
    id: str
    name: str
    price: Money


@dataclass(frozen=True, slots=True)
class RequestedLineItem:
    menu_item_id: str
    quantity: int


def price(
    menu: Mapping[str, MenuItem], requested: Sequence[RequestedLineItem], field: str = "lineItems"
) -> tuple[OrderLineItem, ...]:
    """The lines in the order in which they were asked for. Raises InvalidLineItems or UnknownMenuItem, which name the
    line by ``field``, the request's word for the list."""
    if not 1 <= len(requested) <= MAX_LINES:
        raise _invalid(field, f"an order has 1 to {MAX_LINES} lines, not {len(requested)}")
    lines = tuple(_line(menu, f"{field}.{index}", item) for index, item in enumerate(requested))
    if total_of(lines) > MAX_TOTAL:
        raise _invalid(field, f"the total must not be over {MAX_TOTAL}")
    return lines


def _line(menu: Mapping[str, MenuItem], where: str, requested: RequestedLineItem) -> OrderLineItem:
    if not 1 <= requested.quantity <= MAX_QUANTITY:
        message = f"a quantity is 1 to {MAX_QUANTITY}, not {requested.quantity}"
        raise _invalid(f"{where}.quantity", message)
    item = menu.get(requested.menu_item_id)
    if item is None:
        field, message = f"{where}.menuItemId", f"the menu has no item {requested.menu_item_id!r}"
        raise UnknownMenuItem(f"{field}: {message}", errors=[{"field": field, "message": message}])
    return OrderLineItem(item.id, item.name, item.price, requested.quantity)


def _invalid(field: str, message: str) -> InvalidLineItems:
    return InvalidLineItems(f"{field}: {message}", errors=[{"field": field, "message": message}])
