"""What anybody could write to the topics: it is kept as a dead letter, and nobody else is the worse for it."""

import os
import uuid
from typing import Any

import asyncpg
import pytest
from ftgo_local.scenes.control import Control
from ftgo_local.scenes.records import Topic, body_of, headers_of
from ftgo_local.scenes.stage import Stage, expect
from ftgo_local.scenes.tap import Topics
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.messages import codec
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.runtime.connection import Connection

HANDLED = "ftgo_messages_handled_total"
REFUSED = "ftgo_outbox_publish_failures_total"
AUTHORIZE = {"ce_type": "ftgo.accounting.AuthorizePayment", "ce_source": "order"}


async def _dead(stage: Stage, service: str) -> float:
    return await stage.metric(service, HANDLED, outcome="dead")


async def _died(stage: Stage, service: str, before: float, number: int = 1) -> None:
    async def check() -> None:
        found = await _dead(stage, service)
        expect(found >= before + number, f"{number} dead letters more than {before}", found)

    await stage.until(check)


def _payment(consumer: str, amount: str = "30.00") -> bytes:
    return codec.encode({"consumerId": consumer, "orderId": new_id(), "amount": amount})


async def test_a_record_with_an_endless_key_or_header_stops_nobody(stage: Stage, kafka: str) -> None:
    topic = await Topic(kafka, "kitchen.commands").mark()
    before, refused = await _dead(stage, "kitchen"), await stage.metric("kitchen", REFUSED)
    create = {"ce_id": new_id(), "ce_type": "ftgo.kitchen.CreateTicket", "ce_source": "order"}
    body = {"orderId": new_id(), "restaurantId": await stage.restaurant(), "lineItems": []}
    sound = create | {"ce_replychannel": "order.create-order.replies"}
    for partition in topic.partitions:
        await topic.put(os.urandom(8000), create, b"{}", partition)
    for name in ("ce_sagaid", "ce_correlationid"):
        await topic.put(body["orderId"].encode(), sound | {"ce_id": new_id(), name: "x" * 600_000}, codec.encode(body))
    await _died(stage, "kitchen", before, len(topic.partitions) + 2)
    for _ in range(4):
        await stage.settled(await stage.place(await stage.consumer()), "APPROVED")
    assert await stage.metric("kitchen", REFUSED) == refused  # nothing in the outbox that no broker takes


@pytest.mark.parametrize("key", [None, b"another", uuid.uuid4().bytes], ids=["missing", "wrong", "no text"])
async def test_a_payment_under_a_wrong_key_is_not_authorized(stage: Stage, kafka: str, key: bytes | None) -> None:
    consumer = await stage.consumer()
    await stage.settled(await stage.place(consumer), "APPROVED")
    account, before = await stage.account(consumer), await _dead(stage, "accounting")
    await Topic(kafka, "accounting.commands").put(key, AUTHORIZE | {"ce_id": new_id()}, _payment(consumer))
    await _died(stage, "accounting", before)
    assert await stage.account(consumer) == account


async def test_junk_under_the_id_of_a_command_does_not_make_it_a_duplicate(stage: Stage, topics: Topics) -> None:
    consumer = await stage.consumer()
    await stage.settled(await stage.place(consumer), "APPROVED")
    topic, before = await topics("accounting.commands"), await _dead(stage, "accounting")
    key, awaited = consumer.encode(), AUTHORIZE | {"ce_id": new_id()}
    await topic.put(key, awaited | {"ce_type": "ftgo.accounting.Nobody"}, b"{}")
    await topic.put(b"junk", awaited, _payment(consumer))
    await topic.put(new_id().encode(), awaited | {"ce_source": "stranger"}, b"{broken")
    await _died(stage, "accounting", before, 3)
    await topic.put(key, awaited, _payment(consumer, "7.77"))

    async def authorized() -> None:
        amounts = [entry["amount"] for entry in (await stage.account(consumer))["entries"]]
        expect("7.77" in amounts, "the real one to be carried out", amounts)

    await stage.until(authorized)


async def test_garbage_parks_no_key_and_a_parked_key_shows(stage: Stage, control: Control, topics: Topics) -> None:
    consumer = await stage.consumer()
    await stage.settled(await stage.place(consumer), "APPROVED")
    topic, before = await topics("accounting.commands"), await _dead(stage, "accounting")
    garbage: list[dict[str, str]] = [
        {},
        AUTHORIZE,
        AUTHORIZE | {"ce_id": "7"},
        {"ce_id": new_id(), "ce_source": "order"},
    ]
    for headers in garbage:
        await topic.put(consumer.encode(), headers, b"{broken")
    await _died(stage, "accounting", before, len(garbage))
    await stage.settled(await stage.place(consumer), "APPROVED")

    await topic.put(consumer.encode(), AUTHORIZE | {"ce_id": new_id()}, b"{broken")  # a message that fails
    await _died(stage, "accounting", before, len(garbage) + 1)
    order = await stage.place(consumer)

    async def shown() -> None:
        counts = await _counts(stage)
        expect(counts.get("parkedKeys", 0) >= 1 and counts.get("parked", 0) >= 1, "a parked key", counts)

    await stage.until(shown)
    assert await stage.metric("accounting", "ftgo_parked_keys") >= 1
    assert (await stage.order(order))["state"] == "APPROVAL_PENDING"
    await _discard(control, consumer)
    await stage.settled(order, "APPROVED")


async def _counts(stage: Stage) -> dict[str, int]:
    state: dict[str, Any] = await stage.do("GET", f"{stage.urls.accounting}/readyz")  # ready all the time
    counts: dict[str, int] = state["deadLetters"].get("accounting", {})
    return counts


async def _discard(control: Control, key: str) -> None:
    connection = await asyncpg.connect(control.dsn("accounting"))
    try:
        async with connection.transaction():
            query = "SELECT min(id) FROM dead_letters WHERE key = $1 AND parks_key AND resolved_at IS NULL"
            letter = await connection.fetchval(query, key.encode())
            await dead_letters.discard(Connection(connection), letter)
    finally:
        await connection.close()


async def test_a_price_below_nothing_or_a_version_far_ahead_is_not_believed(stage: Stage, topics: Topics) -> None:
    menu = [{"id": "1", "name": "Soup", "price": "5.00"}]
    topic = await topics("restaurant.events")
    restaurant = await stage.restaurant(menu)
    made = await topic.find(lambda r: body_of(r)["restaurantId"] == restaurant)
    before = await _dead(stage, "order")
    forged = headers_of(made) | {"ce_type": "ftgo.kitchen.RestaurantMenuRevised"}
    for price, sequence in (("-5.00", "2"), ("0.01", "2147483647"), ("0.01", "999999999"), ("0.01", "1002")):
        body = body_of(made) | {"menuItems": [{"id": "1", "name": "Soup", "price": price}]}
        await topic.put(made.key, forged | {"ce_id": new_id(), "ce_sequence": sequence}, codec.encode(body))
    await _died(stage, "order", before, 4)
    revised = {"menu": {"menuItems": [menu[0] | {"price": "6.00"}]}}
    await stage.do("PUT", f"{stage.urls.kitchen}/restaurants/{restaurant}/menu", revised)

    async def heard() -> None:
        known = await stage.do("GET", f"{stage.urls.order}/restaurants/{restaurant}")
        found = (known["version"], known["menu"]["menuItems"][0]["price"])
        expect(found == (2, "6.00"), "the owner to be heard", found)

    await stage.until(heard)
