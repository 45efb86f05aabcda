"""Scenes of one order, when all services run."""

import time

from ftgo_local.scenes.stage import Stage, expect


async def accepted_at_once(stage: Stage) -> None:
    """An order is accepted at once and settled later

    Order answers 202 after one transaction of its own: it asks no other service. The answer does not tell whether the
    order is good. A saga finds that out by messages: the consumer is verified, the kitchen makes a ticket, the payment
    is authorized. `Prefer: wait` holds the second request until that is done.
    """
    orders = f"{stage.urls.order}/orders"
    consumer = await stage.consumer()
    body = await stage.order_for(consumer)
    started = time.monotonic()
    accepted = await stage.show("POST", orders, body, status=202)
    expect(accepted["state"] == "APPROVAL_PENDING", "an order in APPROVAL_PENDING", accepted)
    expect(accepted["orderTotal"] == "31.60", "a total of 31.60", accepted)
    await stage.show_settled(accepted["orderId"], "APPROVED", started)
    ticket = await stage.show("GET", f"{stage.urls.kitchen}/tickets/{accepted['orderId']}")
    expect(ticket["state"] == "AWAITING_ACCEPTANCE", "a ticket that awaits its acceptance", ticket)
    account = await stage.account(consumer)
    expect(account["authorized"] == "31.60", "31.60 authorized", account)


async def poor_consumer(stage: Stage) -> None:
    """A consumer without credit: the order is rejected, and the ticket is cancelled

    Accounting declines when the ticket exists already. The saga turns round: it has the ticket cancelled
    (compensation) and rejects the order, with the reason and the service that refused.
    """
    consumer = await stage.consumer("Paul")
    await stage.credit_limit(consumer, "10.00")
    stage.tell("  The consumer may owe 10.00; the order is about 31.60.")
    body = await stage.order_for(consumer)
    started = time.monotonic()
    accepted = await stage.show("POST", f"{stage.urls.order}/orders", body, status=202)
    order = await stage.show_settled(accepted["orderId"], "REJECTED", started)
    reason = {"reason": "INSUFFICIENT_CREDIT", "service": "accounting"}
    expect(order["rejection"] == reason, f"the rejection {reason}", order)
    ticket = await stage.show("GET", f"{stage.urls.kitchen}/tickets/{accepted['orderId']}")
    expect(ticket["state"] == "CANCELLED", "a cancelled ticket", ticket)
    account = await stage.account(consumer)
    expect(account["authorized"] == "0.00", "nothing authorized", account)
