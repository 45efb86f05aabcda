"""Fifteen ways in which a system like this one goes wrong. One test each: here it does not."""

import uuid
from typing import Any

from ftgo_local.scenes.control import Control
from ftgo_local.scenes.records import Record, body_of, headers_of
from ftgo_local.scenes.stage import Stage, expect, in_minutes
from ftgo_local.scenes.tap import Topics

HANDLED = "ftgo_messages_handled_total"


async def test_defect_01_an_accepted_ticket_is_accepted(stage: Stage) -> None:
    order = await _approved(stage)
    ready_by = in_minutes(30)
    body = {"readyBy": ready_by}
    ticket = await stage.do("POST", f"{stage.urls.kitchen}/tickets/{order}/accept", body)
    assert ticket["state"] == "ACCEPTED"
    assert await stage.ticket(order) == ticket
    assert ticket["readyBy"] == ready_by


async def test_defect_02_a_refused_payment_rejects_the_order_and_cancels_its_ticket(stage: Stage) -> None:
    consumer = await stage.consumer()
    await stage.credit_limit(consumer, "5.00")
    order = await stage.place(consumer)
    assert (await stage.settled(order, "REJECTED"))["rejection"]["service"] == "accounting"
    assert (await stage.ticket(order))["state"] == "CANCELLED"


async def test_defect_03_the_order_limit_is_the_right_way_round(stage: Stage) -> None:
    consumer = await stage.consumer(order_limit="12.80")
    await stage.settled(await stage.place(consumer, [("2", 1)]), "APPROVED")  # 9.50
    await stage.settled(await stage.place(consumer, [("1", 1)]), "APPROVED")  # 12.80, the limit itself
    above = await stage.settled(await stage.place(consumer, [("2", 1), ("3", 1)]), "REJECTED")  # 15.50
    assert above["rejection"] == {"reason": "LIMIT_EXCEEDED", "service": "consumer"}


async def test_defect_04_accounting_keeps_a_balance_and_can_refuse(stage: Stage) -> None:
    consumer = await stage.consumer()
    await stage.credit_limit(consumer, "20.00")
    await stage.settled(await stage.place(consumer, [("1", 1)]), "APPROVED")
    account = await stage.account(consumer)
    assert (account["authorized"], account["available"]) == ("12.80", "7.20")
    refused = await stage.settled(await stage.place(consumer, [("2", 1)]), "REJECTED")
    assert refused["rejection"] == {"reason": "INSUFFICIENT_CREDIT", "service": "accounting"}
    await stage.settled(await stage.place(consumer, [("3", 1)]), "APPROVED")
    assert (await stage.account(consumer))["available"] == "1.20"
    await stage.do("POST", f"{stage.urls.accounting}/accounts/{consumer}/disable")
    disabled = await stage.settled(await stage.place(consumer, [("3", 1)]), "REJECTED")
    assert disabled["rejection"] == {"reason": "DISABLED", "service": "accounting"}


async def test_defect_05_cancel_and_revise_name_the_restaurant(stage: Stage, topics: Topics) -> None:
    restaurant = await stage.restaurant()
    order = await _approved(stage)
    topic = await topics("kitchen.commands")
    await stage.revise(order, [("2", 1)])
    await stage.settled(order, "APPROVED")
    await stage.cancel(order)
    await stage.settled(order, "CANCELLED")
    for name in ("BeginReviseTicket", "ConfirmReviseTicket", "BeginCancelTicket", "ConfirmCancelTicket"):

        def wanted(record: Record, name: str = name) -> bool:
            return headers_of(record)["ce_type"] == f"ftgo.kitchen.{name}" and body_of(record)["orderId"] == order

        assert body_of(await topic.find(wanted))["restaurantId"] == restaurant


async def test_defect_06_a_revision_may_leave_out_lines_and_add_some(stage: Stage) -> None:
    consumer = await stage.consumer()
    order = await stage.place(consumer, [("1", 2), ("2", 1)])
    await stage.settled(order)
    await stage.revise(order, [("1", 1), ("3", 4)])
    revised = await stage.settled(order, "APPROVED")
    assert _quantities(revised["lineItems"]) == {"1": 1, "3": 4}
    assert revised["orderTotal"] == "36.80"
    assert _quantities((await stage.ticket(order))["lineItems"]) == {"1": 1, "3": 4}
    assert (await stage.account(consumer))["authorized"] == "36.80"


async def test_defect_07_a_change_in_a_wrong_state_is_refused_and_blocks_nobody(stage: Stage) -> None:
    consumer = await stage.consumer()
    order = await stage.place(consumer)
    await stage.settled(order)
    await stage.do("POST", f"{stage.urls.kitchen}/tickets/{order}/accept", {"readyBy": in_minutes(30)})
    await stage.do("POST", f"{stage.urls.kitchen}/tickets/{order}/preparing")
    before = await stage.ticket(order)
    await stage.cancel(order)  # Order cannot know that the food is on the stove
    kept = await stage.settled(order, "APPROVED")
    await stage.revise(order, [("2", 1)])
    kept = await stage.settled(order, "APPROVED")
    assert (kept["orderTotal"], kept["changeRefusal"]) == ("31.60", {"reason": "WRONG_STATE", "service": "kitchen"})
    assert await stage.ticket(order) == before
    assert (await stage.account(consumer))["authorized"] == "31.60"
    await stage.settled(await stage.place(consumer), "APPROVED")
    rejected = await stage.place(str(uuid.uuid4()))
    await stage.settled(rejected, "REJECTED")
    await stage.cancel(rejected, status=409)
    await stage.revise(rejected, [("2", 1)], status=409)


async def test_defect_08_cancel_and_revise_answer_with_the_state_after(stage: Stage) -> None:
    order = await _approved(stage)
    assert (await stage.revise(order, [("2", 1)]))["state"] == "REVISION_PENDING"
    await stage.settled(order)
    begun = await stage.cancel(order)
    assert begun["state"] == "CANCEL_PENDING"
    assert begun["version"] == 5


async def test_defect_09_the_views_of_an_order_can_be_put_together(stage: Stage) -> None:
    consumer = await stage.consumer()
    order_id = await stage.place(consumer)
    order = await stage.settled(order_id)
    ticket, account = await stage.ticket(order_id), await stage.account(consumer)
    assert ticket["id"] == order["orderId"]
    assert ticket["restaurantId"] == order["restaurantId"]
    assert _quantities(ticket["lineItems"]) == _quantities(order["lineItems"])
    authorized = [entry for entry in account["entries"] if entry["orderId"] == order_id]
    assert [entry["amount"] for entry in authorized] == [order["orderTotal"]]
    replica = await stage.do("GET", f"{stage.urls.order}/consumers/{consumer}")
    assert replica["name"] == (await stage.do("GET", f"{stage.urls.consumer}/consumers/{consumer}"))["name"]
    listed = await stage.do("GET", f"{stage.urls.order}/orders?consumerId={consumer}")
    assert [{name: o[name] for name in order if name != "deliveryAddress"} for o in listed["orders"]] == [
        {name: value for name, value in order.items() if name != "deliveryAddress"}
    ]


async def test_defect_10_history_counts_versions_as_numbers_and_knows_revisions(stage: Stage) -> None:
    order = await _approved(stage)
    for quantity in range(1, 6):
        await stage.revise(order, [("2", quantity)])
        await stage.settled(order)
    events = await stage.events(order)
    assert [event["id"] for event in events] == list(range(1, 13))
    assert [event["state"] for event in events].count("REVISION_PENDING") == 5
    # As text "9" is greater than "10", and the stream would end here.
    assert [event["id"] for event in await stage.events(order, after=9)] == [10, 11, 12]


async def test_defect_11_accounting_takes_no_message_twice(stage: Stage, topics: Topics) -> None:
    topic = await topics("accounting.commands")
    consumer = await stage.consumer()
    order = await stage.place(consumer)
    await stage.settled(order)
    record = await topic.find(lambda r: body_of(r).get("orderId") == order)
    before = await stage.account(consumer)
    counted = await stage.metric("accounting", HANDLED, outcome="duplicate")
    for _ in range(3):
        await topic.put_again(record)
    await _grown(stage, "accounting", HANDLED, counted + 3, outcome="duplicate")
    assert await stage.account(consumer) == before


async def test_defect_12_a_poisonous_message_stops_no_subscriber(stage: Stage, topics: Topics) -> None:
    topic = await topics("accounting.commands")
    dead = await stage.metric("accounting", HANDLED, outcome="dead")
    known = {"ce_type": "ftgo.accounting.AuthorizePayment", "ce_messagekind": "command"}
    for partition in topic.partitions:
        stranger = {"ce_id": str(uuid.uuid4()), "ce_type": "ftgo.accounting.NobodyKnows"}
        await topic.put(uuid.uuid4().bytes, stranger, b"{}", partition)
    await topic.put(b"garbage", {**known, "ce_id": str(uuid.uuid4())}, b"\xff not JSON")
    await topic.put(b"ill-typed", {**known, "ce_id": str(uuid.uuid4())}, b'{"consumerId": 7}')
    await topic.put(b"nothing at all", {}, None)
    await _grown(stage, "accounting", HANDLED, dead + len(topic.partitions) + 3, outcome="dead")
    await stage.do("GET", f"{stage.urls.accounting}/readyz")
    for order in [await stage.place(await stage.consumer()) for _ in range(10)]:
        await stage.settled(order, "APPROVED")


async def test_defect_13_a_refusal_leaves_nothing_half_done(stage: Stage) -> None:
    consumer = await stage.consumer(order_limit="5000.00")
    refused = await stage.settled(await stage.place(consumer, [("1", 100)]), "REJECTED")
    assert refused["rejection"]["reason"] == "INSUFFICIENT_CREDIT"

    async def untouched() -> None:
        account = await stage.account(consumer)
        entries = [entry["type"] for entry in account["entries"]]
        expect(entries == ["ACCOUNT_OPENED"] and account["authorized"] == "0.00", "an untouched account", account)

    await stage.until(untouched)
    order = await stage.place(consumer)
    before = await stage.settled(order)
    account, ticket = await stage.account(consumer), await stage.ticket(order)
    await stage.revise(order, [("1", 100)])
    after = await stage.settled(order, "APPROVED")
    why = {"reason": "INSUFFICIENT_CREDIT", "service": "accounting"}
    assert after == {**before, "version": before["version"] + 2, "changeRefusal": why}
    assert await stage.account(consumer) == account
    kept = await stage.ticket(order)
    assert (kept["state"], kept["lineItems"]) == (ticket["state"], ticket["lineItems"])


async def test_defect_14_a_late_reply_moves_no_saga(stage: Stage, control: Control, topics: Topics) -> None:
    topic = await topics("order.create-order.replies")
    dropped = await stage.metric("order", "ftgo_saga_replies_dropped_total")
    await control.stop("accounting")
    try:
        order = await stage.place(await stage.consumer())
        reply = await topic.find(
            lambda r: headers_of(r)["ce_type"] == "ftgo.kitchen.reply.TicketCreated" and body_of(r)["ticketId"] == order
        )
        # The saga awaits Accounting now. The kitchen's word on its ticket comes once more, and is another one.
        refusal = headers_of(reply) | {
            "ce_id": str(uuid.uuid4()),
            "ce_type": "ftgo.kitchen.reply.TicketRefused",
            "ce_outcome": "FAILURE",
        }
        await topic.put(reply.key, refusal, b'{"reason": "WRONG_STATE"}', reply.partition)
        await _grown(stage, "order", "ftgo_saga_replies_dropped_total", dropped + 1)
        assert (await stage.order(order))["state"] == "APPROVAL_PENDING"
    finally:
        await control.start("accounting")
    await stage.settled(order, "APPROVED")


async def test_defect_15_long_orders_fit_into_every_column(stage: Stage) -> None:
    menu = [{"id": f"{n}-{'i' * 190}", "name": f"{n} {'n' * 190}", "price": "1.00"} for n in range(50)]
    restaurant = await stage.restaurant(menu)
    lines = [(item["id"], 1) for item in menu]
    order = await stage.place(await stage.consumer(), lines, restaurant)
    assert len((await stage.settled(order, "APPROVED"))["lineItems"]) == 50
    await stage.revise(order, [(item, 2) for item, _ in lines])
    assert (await stage.settled(order, "APPROVED"))["orderTotal"] == "100.00"
    assert len((await stage.ticket(order))["lineItems"]) == 50


async def _approved(stage: Stage) -> str:
    order = await stage.place(await stage.consumer())
    await stage.settled(order)
    return order


async def _grown(stage: Stage, service: str, name: str, at_least: float, **labels: str) -> None:
    async def check() -> None:
        found = await stage.metric(service, name, **labels)
        expect(found >= at_least, f"{name} of {service} to be {at_least} or more", found)

    await stage.until(check)


def _quantities(lines: list[dict[str, Any]]) -> dict[str, int]:
    return {line["menuItemId"]: line["quantity"] for line in lines}
