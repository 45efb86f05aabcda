"""Scenes in which a part is away: a participant of the saga, or the broker."""

import time
from typing import TYPE_CHECKING

from ftgo_local.errors import NotRunningError
from ftgo_local.scenes.stage import Stage, expect

if TYPE_CHECKING:
    from ftgo_local.scenes.control import Control

WAITING_ORDERS = 5


async def accounting_stopped(stage: Stage) -> None:
    """Accounting is stopped: orders wait, nothing is lost

    Orders are accepted as fast as ever. Each waits in APPROVAL_PENDING for an answer that comes after the restart.
    What does not need Accounting is settled meanwhile: the second order here is above its consumer's order limit.
    """
    control = _control(stage)
    consumer, small = await stage.consumer(), await stage.consumer("Sam", order_limit="20.00")
    body = await stage.order_for(consumer)
    stage.tell("  $ ftgo stop accounting")
    await control.stop("accounting")
    try:
        started = time.monotonic()
        first = await stage.show("POST", f"{stage.urls.order}/orders", body, status=202)
        await stage.show_settled(await stage.place(small), "REJECTED", time.monotonic())
        waiting = [first["orderId"], *[await stage.place(await stage.consumer()) for _ in range(WAITING_ORDERS - 1)]]
        stage.tell(f"  {len(waiting)} orders of {len(waiting)} consumers are accepted. One second later:")
        url = f"{stage.urls.order}/orders/{first['orderId']}"
        order = await stage.show("GET", url, headers={"Prefer": "wait=1"})
        expect(order["state"] == "APPROVAL_PENDING", "an order that waits", order)
    finally:
        stage.tell("  $ ftgo start accounting")
        await control.start("accounting")
    back = time.monotonic()
    await stage.show_settled(first["orderId"], "APPROVED", started)
    for order_id in waiting:
        await stage.settled(order_id)
    stage.tell(f"  All {len(waiting)} are approved {time.monotonic() - back:.1f} s after Accounting was back.")
    account = await stage.account(consumer)
    expect(account["authorized"] == "31.60", "31.60 authorized, once", account)


async def broker_stopped(stage: Stage) -> None:
    """The broker is stopped: REST goes on, the outbox keeps the messages

    A request writes its order and its messages to PostgreSQL in one transaction; the broker takes no part in it.
    Without it the messages pile up in the outbox. When it is back, the relay publishes them, and the outbox is empty.
    """
    control = _control(stage)
    broker = control.broker
    if broker is None:
        raise NotRunningError("This scene stops the broker, and it runs elsewhere.", "Unset FTGO_BROKER_URL.")
    consumer = await stage.consumer()
    await stage.settled(await stage.place(consumer))
    stage.tell(f"  $ ftgo stop {broker}")
    await control.stop(broker)
    try:
        body = await stage.order_for(consumer)
        started = time.monotonic()
        first = await stage.show("POST", f"{stage.urls.order}/orders", body, status=202)
        waiting = [first["orderId"], *[await stage.place(consumer) for _ in range(WAITING_ORDERS - 1)]]
        rows = await control.count("order", "outbox")
        stage.tell(f"  {len(waiting)} orders are accepted. The outbox of Order: {rows} messages wait.")
        expect(rows >= 2 * len(waiting), "an event and a command in the outbox for each order", rows)
        await stage.do("GET", f"{stage.urls.order}/livez")
        order = await stage.order(first["orderId"])
        expect(order["state"] == "APPROVAL_PENDING", "an order that waits", order)
    finally:
        stage.tell(f"  $ ftgo start {broker}")
        await control.start(broker)
    back = time.monotonic()
    await stage.show_settled(first["orderId"], "APPROVED", started)
    for order_id in waiting:
        await stage.settled(order_id)
    stage.tell(f"  All {len(waiting)} are approved {time.monotonic() - back:.1f} s after {broker} was back.")

    async def drained() -> None:
        rows = await control.count("order", "outbox")
        expect(rows == 0, "an empty outbox", rows)

    await stage.until(drained)
    stage.tell("  The outbox of Order: empty.")


def _control(stage: Stage) -> "Control":
    if stage.control is None:
        raise NotRunningError("This scene stops processes.", "`ftgo up` starts a platform where it may do that.")
    return stage.control
