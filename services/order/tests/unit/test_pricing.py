"""Lines are priced by the menu, those of a revision first by the order; what the menu proves wrong is refused."""

import pytest
from ftgo_contracts.money import Money
from ftgo_order.domain.order import OrderLineItem, total_of
from ftgo_order.domain.pricing import InvalidLineItems, MenuItem, RequestedLineItem, UnknownMenuItem, price, reprice
from hypothesis import given
from hypothesis import strategies as st

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


ORDERED = price(MENU, [RequestedLineItem("1", 5)])
RISEN = {"1": MenuItem("1", "Vindaloo, extra hot", Money.of("20.00")), "3": MenuItem("3", "Naan", Money.of("2.50"))}


@pytest.mark.parametrize(("quantity", "total"), [(5, "61.70"), (6, "74.04"), (4, "49.36")])
def test_a_dish_that_stays_costs_what_it_cost_however_many_there_are(quantity, total):
    lines = reprice(ORDERED, RISEN, [RequestedLineItem("1", quantity)])
    assert lines == (OrderLineItem("1", "Chicken Vindaloo", Money.of("12.34"), quantity),)
    assert total_of(lines) == Money.of(total)


def test_a_new_dish_costs_what_it_costs_today():
    lines = reprice(ORDERED, RISEN, [RequestedLineItem("3", 2), RequestedLineItem("1", 1)])
    assert [(line.name, line.price) for line in lines] == [
        ("Naan", Money.of("2.50")),
        ("Chicken Vindaloo", Money.of("12.34")),
    ]


def test_a_dish_that_was_revised_away_is_new_when_it_comes_back():
    without = reprice(ORDERED, RISEN, [RequestedLineItem("3", 1)])
    assert reprice(without, RISEN, [RequestedLineItem("1", 1)])[0].price == Money.of("20.00")


LEFT = {"3": RISEN["3"]}


@pytest.mark.parametrize("quantities", [[5], [4], [2, 3], [1, 1]])
def test_a_dish_that_has_left_the_menu_may_stay_or_become_less(quantities):
    lines = reprice(ORDERED, LEFT, [RequestedLineItem("1", quantity) for quantity in quantities])
    assert total_of(lines) == Money.of("12.34") * sum(quantities)


def test_a_dish_that_has_left_the_menu_may_be_removed():
    assert total_of(reprice(ORDERED, LEFT, [RequestedLineItem("3", 1)])) == Money.of("2.50")


@pytest.mark.parametrize("quantities", [[6], [5, 1], [3, 3]])
def test_more_of_a_dish_that_has_left_the_menu_is_not_for_sale(quantities):
    with pytest.raises(UnknownMenuItem, match="at most the 5 of the order") as refusal:
        reprice(ORDERED, LEFT, [RequestedLineItem("1", quantity) for quantity in quantities])
    (error,) = refusal.value.extra["errors"]
    assert error["field"] == "revisedOrderLineItems.0.quantity"


def test_a_revision_is_as_limited_as_an_order():
    with pytest.raises(InvalidLineItems, match="revisedOrderLineItems"):
        reprice(ORDERED, RISEN, [])
    with pytest.raises(InvalidLineItems, match=r"revisedOrderLineItems\.0\.quantity"):
        reprice(ORDERED, RISEN, [RequestedLineItem("1", 101)])


dishes = st.sampled_from(["1", "2", "3", "4"])
requests = st.lists(st.builds(RequestedLineItem, dishes, st.integers(1, 3)), min_size=1, max_size=4)
menus = st.dictionaries(dishes, st.integers(0, 9)).map(
    lambda prices: {dish: MenuItem(dish, f"{dish} for {price}", Money(price)) for dish, price in prices.items()}
)


@given(st.lists(st.tuples(menus, requests), min_size=1, max_size=5))
def test_within_an_order_a_dish_has_one_price_as_long_as_it_stays(revisions):
    """Whatever the menus and the revisions: the price of the moment in which the dish came into the order."""
    lines, prices = (), {}
    for menu, requested in revisions:
        try:
            lines = reprice(lines, menu, requested)
        except UnknownMenuItem:
            continue
        prices = {line.menu_item_id: prices.get(line.menu_item_id, menu.get(line.menu_item_id)) for line in lines}
        assert [(x.name, x.price) for x in lines] == [
            (prices[x.menu_item_id].name, prices[x.menu_item_id].price) for x in lines
        ]
