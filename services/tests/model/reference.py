"""What orders must come to, by a model that is as simple as can be: a price list for each order."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ftgo_contracts.money import Money
from ftgo_order.domain.order import Order, OrderLineItem
from ftgo_order.domain.pricing import MenuItem, RequestedLineItem

Prices = Mapping[str, tuple[str, Money]]


def prices_of(menu: Mapping[str, MenuItem]) -> Prices:
    return {dish: (item.name, item.price) for dish, item in menu.items()}


@dataclass
class Expected:
    """An order as it should be: its portions at the prices of the moments in which its dishes came into it, and what
    is proposed instead. ``final``: its consumer was blocked before the newest revision; no proposal may win."""

    lines: tuple[OrderLineItem, ...]
    proposed: tuple[OrderLineItem, ...] | None = None
    final: bool = False


@dataclass
class Reference:
    orders: dict[str, Expected] = field(default_factory=dict)

    def created(self, order_id: str, requested: Iterable[RequestedLineItem], menu: Mapping[str, MenuItem]) -> None:
        self.orders[order_id] = Expected(_lines(requested, prices_of(menu)))

    def may_revise(self, order_id: str, requested: Iterable[RequestedLineItem], menu: Mapping[str, MenuItem]) -> bool:
        """Whether every dish can be had: it is on the menu, or the order has that many."""
        had = _portions(self.orders[order_id].lines)
        return all(dish in menu or many <= had[dish] for dish, many in _portions(requested).items())

    def proposed(
        self, order_id: str, requested: Iterable[RequestedLineItem], menu: Mapping[str, MenuItem], blocked: bool
    ) -> None:
        expected = self.orders[order_id]
        kept = {line.menu_item_id: (line.name, line.price) for line in expected.lines}
        expected.proposed = _lines(requested, {**prices_of(menu), **kept})
        expected.final = blocked

    def check(self, order: Order) -> None:
        """The order stands as it was, unless its proposal has won."""
        expected = self.orders[order.id]
        if order.revision is not None:
            assert order.revision.line_items == expected.proposed
        elif expected.proposed is not None:
            if order.line_items != expected.lines:
                assert not expected.final, "a blocked consumer has revised an order"
                expected.lines = expected.proposed
            expected.proposed = None
        assert order.line_items == expected.lines
        assert order.order_total == sum((i.price * i.quantity for i in expected.lines), Money.zero())


def _portions(lines: Iterable[OrderLineItem] | Iterable[RequestedLineItem]) -> Counter[str]:
    portions: Counter[str] = Counter()
    for line in lines:
        portions[line.menu_item_id] += line.quantity
    return portions


def _lines(requested: Iterable[RequestedLineItem], prices: Prices) -> tuple[OrderLineItem, ...]:
    return tuple(OrderLineItem(i.menu_item_id, *prices[i.menu_item_id], i.quantity) for i in requested)
