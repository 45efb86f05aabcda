"""What a revised order costs, and that revising opens no door which ordering keeps shut."""

from collections.abc import Sequence
from typing import Any

import pytest
from ftgo_local.scenes.stage import Line, Stage, expect

VINDALOO = {"id": "1", "name": "Chicken Vindaloo", "price": "12.34"}
DEARER = {**VINDALOO, "name": "Vindaloo, extra hot", "price": "20.00"}
NAAN = {"id": "2", "name": "Naan", "price": "2.50"}


async def _menu(stage: Stage, restaurant: str, *items: dict[str, str]) -> None:
    """A new menu, and Order knows it."""
    menu = {"menuItems": list(items)}
    await stage.do("PUT", f"{stage.urls.kitchen}/restaurants/{restaurant}/menu", {"menu": menu})

    async def known() -> None:
        replica = await stage.do("GET", f"{stage.urls.order}/restaurants/{restaurant}")
        expect(replica["menu"] == menu, f"the menu {menu}", replica)

    await stage.until(known)


async def _ordered(stage: Stage, consumer: str, lines: Sequence[Line]) -> tuple[str, str]:
    restaurant = await stage.restaurant([VINDALOO, NAAN])
    order = await stage.place(consumer, lines, restaurant)
    await stage.settled(order, "APPROVED")
    return order, restaurant


async def _block(stage: Stage, consumer: str, *, known: bool) -> None:
    await stage.do("POST", f"{stage.urls.consumer}/consumers/{consumer}/block")

    async def heard() -> None:
        replica = await stage.do("GET", f"{stage.urls.order}/consumers/{consumer}")
        expect(replica["status"] == "BLOCKED", "a blocked consumer", replica)

    if known:
        await stage.until(heard)


async def _refused(stage: Stage, order: str, lines: Sequence[Line], of: str) -> dict[str, Any]:
    body = {"revisedOrderLineItems": [{"menuItemId": item, "quantity": quantity} for item, quantity in lines]}
    answer = await stage.client.post(f"{stage.urls.order}/orders/{order}/revise", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, f"urn:ftgo:{of}")
    problem: dict[str, Any] = answer.json()
    return problem


async def test_what_stays_costs_what_it_cost_and_what_is_new_costs_what_it_costs_today(stage: Stage) -> None:
    consumer = await stage.consumer()
    order, restaurant = await _ordered(stage, consumer, [("1", 5)])
    await _menu(stage, restaurant, DEARER, {**NAAN, "price": "3.00"})
    begun = await stage.revise(order, [("1", 6)])
    assert begun["revision"]["orderTotal"] == "74.04"
    revised = await stage.settled(order, "APPROVED")
    assert (revised["orderTotal"], revised["lineItems"][0]["name"]) == ("74.04", "Chicken Vindaloo")
    assert (await stage.account(consumer))["authorized"] == "74.04"
    assert (await stage.ticket(order))["lineItems"] == [
        {"menuItemId": "1", "name": "Chicken Vindaloo", "quantity": 6},
    ]
    await stage.revise(order, [("1", 1), ("2", 2)])
    assert (await stage.settled(order, "APPROVED"))["orderTotal"] == "18.34"


async def test_a_dish_that_has_left_the_menu_is_kept_reduced_and_removed_but_not_enlarged(stage: Stage) -> None:
    consumer = await stage.consumer()
    order, restaurant = await _ordered(stage, consumer, [("1", 5)])
    await _menu(stage, restaurant, NAAN)
    problem = await _refused(stage, order, [("1", 6)], "unknown-menu-item")
    assert problem["errors"][0]["field"] == "revisedOrderLineItems.0.quantity"
    steps: list[tuple[list[Line], str]] = [
        ([("1", 5), ("2", 1)], "64.20"),
        ([("1", 4), ("2", 1)], "51.86"),
        ([("2", 1)], "2.50"),
    ]
    for lines, total in steps:
        await stage.revise(order, lines)
        assert (await stage.settled(order, "APPROVED"))["orderTotal"] == total
    await _refused(stage, order, [("1", 1)], "unknown-menu-item")


async def test_a_revision_is_held_to_the_order_limit(stage: Stage) -> None:
    consumer = await stage.consumer(order_limit="13.00")
    order, _ = await _ordered(stage, consumer, [("1", 1)])
    before = await stage.order(order)
    begun = await stage.revise(order, [("1", 50)])
    assert begun["revision"]["orderTotal"] == "617.00"
    after = await stage.settled(order, "APPROVED")
    assert (after["orderTotal"], after["lineItems"]) == (before["orderTotal"], before["lineItems"])
    assert "revision" not in after
    assert after["changeRefusal"] == {"reason": "LIMIT_EXCEEDED", "service": "consumer"}
    assert (await stage.account(consumer))["authorized"] == "12.34"
    assert (await stage.ticket(order))["state"] == "AWAITING_ACCEPTANCE"
    await stage.revise(order, [("2", 5)])  # 12.50
    revised = await stage.settled(order, "APPROVED")
    assert revised["orderTotal"] == "12.50"
    assert "changeRefusal" not in revised


@pytest.mark.parametrize("known", [True, False], ids=["known to Order", "known to Consumer alone, perhaps"])
async def test_a_blocked_consumer_revises_nothing_and_may_still_cancel(stage: Stage, known: bool) -> None:
    consumer = await stage.consumer()
    order, _ = await _ordered(stage, consumer, [("1", 5)])
    await _block(stage, consumer, known=known)
    if known:
        await _refused(stage, order, [("1", 4)], "consumer-blocked")
    else:
        body = {"revisedOrderLineItems": [{"menuItemId": "1", "quantity": 6}]}
        answer = await stage.client.post(f"{stage.urls.order}/orders/{order}/revise", json=body)
        assert answer.status_code in {202, 422}
    assert (await stage.settled(order, "APPROVED"))["orderTotal"] == "61.70"
    assert (await stage.account(consumer))["authorized"] == "61.70"
    await stage.cancel(order)
    await stage.settled(order, "CANCELLED")
