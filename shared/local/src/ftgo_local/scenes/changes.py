"""Scenes of an order that is changed after it was approved."""

import time

from ftgo_local.scenes.stage import Stage, expect, line_items


async def cancel_and_revise(stage: Stage) -> None:
    """An order is revised, then cancelled

    Both are sagas: the kitchen agrees first (for a revision Consumer before it, as for a new order), then the credit is
    changed, then ticket and order are. The 202 shows the pending state; while it lasts, nobody else can begin another
    change (409). What stays in a revised order keeps its price. A cancelled order stays cancelled.
    """
    consumer = await stage.consumer()
    order = await stage.place(consumer)
    await stage.settled(order)
    url = f"{stage.urls.order}/orders/{order}"

    stage.tell("  Three portions of lasagne instead, and no tiramisu:")
    started = time.monotonic()
    body = {"revisedOrderLineItems": line_items([("1", 3)])}
    begun = await stage.show("POST", f"{url}/revise", body, status=202)
    expect(begun["state"] == "REVISION_PENDING", "an order in REVISION_PENDING", begun)
    revised = await stage.show_settled(order, "APPROVED", started)
    expect(revised["orderTotal"] == "38.40", "a total of 38.40", revised)
    account = await stage.account(consumer)
    expect(account["authorized"] == "38.40", "38.40 authorized", account)

    stage.tell("  No supper at all:")
    started = time.monotonic()
    begun = await stage.show("POST", f"{url}/cancel", status=202)
    expect(begun["state"] == "CANCEL_PENDING", "an order in CANCEL_PENDING", begun)
    await stage.show_settled(order, "CANCELLED", started)
    ticket = await stage.ticket(order)
    expect(ticket["state"] == "CANCELLED", "a cancelled ticket", ticket)
    account = await stage.show("GET", f"{stage.urls.accounting}/accounts/{consumer}")
    expect(account["authorized"] == "0.00", "nothing authorized any more", account)
    await stage.show("POST", f"{url}/cancel", status=409)
