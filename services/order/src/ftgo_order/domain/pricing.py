"""From what somebody asks for to lines with names and prices: by the menu as this service knows it, and for a revision
first by the order itself."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ftgo_contracts.money import Money
from ftgo_messaging import DomainError

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
    """The restaurant's menu has no such item, or no longer."""

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


def reprice(
    ordered: Sequence[OrderLineItem],
    menu: Mapping[str, MenuItem],
    requested: Sequence[RequestedLineItem],
    field: str = "revisedOrderLineItems",
) -> tuple[OrderLineItem, ...]:
    """The lines of a revision. A dish that the order has keeps its name and its price, however many portions there are
    to be and whatever the menu says today; a new one has today's. A dish that has left the menu may stay or become
    less; more of it is not for sale. Raises as ``price`` does."""
    kept = {line.menu_item_id: MenuItem(line.menu_item_id, line.name, line.price) for line in ordered}
    lines = price({**menu, **kept}, requested, field)
    had, wanted = _portions(ordered), _portions(lines)
    for index, line in enumerate(lines):
        dish = line.menu_item_id
        if dish not in menu and wanted[dish] > had[dish]:
            message = f"the menu no longer has {dish!r}: at most the {had[dish]} of the order"
            raise _unknown(f"{field}.{index}.quantity", message)
    return lines


def _portions(lines: Iterable[OrderLineItem]) -> Counter[str]:
    """How many of each dish, in however many lines."""
    portions: Counter[str] = Counter()
    for line in lines:
        portions[line.menu_item_id] += line.quantity
    return portions


def _line(menu: Mapping[str, MenuItem], where: str, requested: RequestedLineItem) -> OrderLineItem:
    if not 1 <= requested.quantity <= MAX_QUANTITY:
        message = f"a quantity is 1 to {MAX_QUANTITY}, not {requested.quantity}"
        raise _invalid(f"{where}.quantity", message)
    item = menu.get(requested.menu_item_id)
    if item is None:
        raise _unknown(f"{where}.menuItemId", f"the menu has no item {requested.menu_item_id!r}")
    return OrderLineItem(item.id, item.name, item.price, requested.quantity)


def _invalid(field: str, message: str) -> InvalidLineItems:
    return InvalidLineItems(f"{field}: {message}", errors=[{"field": field, "message": message}])


def _unknown(field: str, message: str) -> UnknownMenuItem:
    return UnknownMenuItem(f"{field}: {message}", errors=[{"field": field, "message": message}])
