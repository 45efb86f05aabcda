"""Lines are priced by the menu, and refused when the menu proves them wrong."""

import pytest
from ftgo_contracts.money import Money
from ftgo_order.domain.order import OrderLineItem
from ftgo_order.domain.pricing import InvalidLineItems, MenuItem, RequestedLineItem, UnknownMenuItem, price

MENU = {
    "1": MenuItem("1", "Chicken Vindaloo", Money.of("12.34")),
    "2": MenuItem("2", "Gold Leaf", Money.of("999999999.99")),
}


def test_lines_take_name_and_price_of_the_menu():
    assert price(MENU, [RequestedLineItem("1", 5)]) == (OrderLineItem("1", "Chicken Vindaloo", Money.of("12.34"), 5),)


@pytest.mark.parametrize("count", [1, 50])
def test_as_many_lines_as_allowed(count):
    assert len(price(MENU, [RequestedLineItem("1", 1)] * count)) == count


@pytest.mark.parametrize("count", [0, 51])
def test_too_few_or_too_many_lines(count):
    with pytest.raises(InvalidLineItems, match="lineItems"):
        price(MENU, [RequestedLineItem("1", 1)] * count)


@pytest.mark.parametrize("quantity", [-1, 0, 101])
def test_a_quantity_out_of_range_names_its_line(quantity):
    with pytest.raises(InvalidLineItems, match=r"lineItems\.1\.quantity"):
        price(MENU, [RequestedLineItem("1", 1), RequestedLineItem("1", quantity)])


def test_an_item_that_is_not_on_the_menu_is_named():
    with pytest.raises(UnknownMenuItem, match="'9'") as refusal:
        price(MENU, [RequestedLineItem("9", 1)])
    assert refusal.value.extra["errors"] == [{"field": "lineItems.0.menuItemId", "message": "the menu has no item '9'"}]


def test_a_total_that_no_account_can_hold():
    with pytest.raises(InvalidLineItems, match="total"):
        price(MENU, [RequestedLineItem("2", 11)])
