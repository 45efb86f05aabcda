"""Creating, cancelling and revising orders, and the steps of the sagas, over a unit of work in memory."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from ftgo_contracts.consumer.commands import VerifyConsumer
from ftgo_contracts.kitchen.commands import BeginCancelTicket
from ftgo_contracts.money import Money
from ftgo_contracts.order import events
from ftgo_messaging import new_id
from ftgo_messaging.testing.memory import Memory
from ftgo_order.adapters.replicas import CONSUMERS, RESTAURANTS, ConsumerReplica, RestaurantReplica
from ftgo_order.adapters.tables import IDEMPOTENCY_KEYS, ORDERS, IdempotencyKey, order_history
from ftgo_order.application import order_steps
from ftgo_order.application.cancel_order import cancel_order
from ftgo_order.application.create_order import (
    CreateOrder,
    DeliveryTimeInThePast,
    KeyUsedOtherwise,
    OrderIdTaken,
    create_order_once,
    put_order,
    scoped,
)
from ftgo_order.application.refusals import ConsumerIsBlocked, UnknownRestaurant
from ftgo_order.application.revise_order import revise_order
from ftgo_order.domain.order import Address, Delivery, Order, OrderNotFound, OrderState, WrongState
from ftgo_order.domain.pricing import MenuItem, RequestedLineItem, UnknownMenuItem, price
from msgspec import structs

ADDRESS = Address("1 Main Street", None, "Oakland", "CA", "94611")
DELIVERY = Delivery(datetime(2030, 1, 1, 18, tzinfo=UTC), ADDRESS)
MENU = {"1": MenuItem("1", "Soup", Money.of("4.50")), "2": MenuItem("2", "Curry", Money.of("12.35"))}
ASHA, SPICE = new_id(), new_id()
REQUEST = CreateOrder(ASHA, SPICE, DELIVERY, (RequestedLineItem("1", 2),))


@pytest.fixture
def memory() -> Memory:
    memory = Memory("order")
    memory.put(CONSUMERS, ConsumerReplica(ASHA, "Asha", "Rao", "ACTIVE", 1))
    memory.put(RESTAURANTS, RestaurantReplica(SPICE, "Spice", MENU, 1))
    return memory


@pytest.fixture
async def approved(memory) -> str:
    """The id of an approved order; its messages are cleared away."""
    order_id = new_id()
    await memory.run(lambda uow: put_order(REQUEST, order_id, uow))
    await memory.run(lambda uow: order_steps.approve(order_id, uow))
    memory.messages.clear()
    return order_id


def history(memory, order_id):
    rows = [row for table, row in memory.appended if table is order_history and row["order_id"] == order_id]
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["state"] for row in rows]


async def test_creating_keeps_order_history_event_and_first_command_together(memory):
    order_id = new_id()
    accepted = await memory.run(lambda uow: create_order_once(REQUEST, order_id, None, uow))
    assert (accepted.order_id, accepted.order_total) == (order_id, Money.of("9.00"))
    assert memory.get(ORDERS, order_id).state is OrderState.APPROVAL_PENDING
    assert history(memory, order_id) == ["APPROVAL_PENDING"]
    created, verify = memory.sent()
    assert isinstance(created, events.OrderCreated)
    assert created.line_items == (events.OrderLineItem("1", "Soup", Money.of("4.50"), 2, Money.of("9.00")),)
    assert created.restaurant_name == memory.get(ORDERS, order_id).restaurant_name == "Spice"
    assert (created.delivery_time, asdict(ADDRESS)) == (DELIVERY.time, structs.asdict(created.delivery_address))
    assert verify == VerifyConsumer(consumer_id=ASHA, order_id=order_id, order_total=Money.of("9.00"))


async def test_a_blocked_consumer_is_refused_at_once(memory):
    memory.put(CONSUMERS, ConsumerReplica(ASHA, "Asha", "Rao", "BLOCKED", 2))
    with pytest.raises(ConsumerIsBlocked):
        await memory.run(lambda uow: create_order_once(REQUEST, new_id(), None, uow))
    assert memory.messages == []


async def test_a_consumer_that_is_not_known_yet_is_accepted(memory):
    stranger = replace(REQUEST, consumer_id=new_id())
    accepted = await memory.run(lambda uow: create_order_once(stranger, new_id(), None, uow))
    assert memory.get(ORDERS, accepted.order_id).consumer_id == stranger.consumer_id


async def test_what_cannot_be_priced_is_refused(memory):
    with pytest.raises(UnknownRestaurant):
        await memory.run(lambda uow: create_order_once(replace(REQUEST, restaurant_id=new_id()), new_id(), None, uow))
    wrong_item = replace(REQUEST, line_items=(RequestedLineItem("9", 1),))
    with pytest.raises(UnknownMenuItem):
        await memory.run(lambda uow: create_order_once(wrong_item, new_id(), None, uow))
    assert memory.messages == []


async def test_the_same_key_gives_the_same_answer_even_later(memory):
    first = await memory.run(lambda uow: create_order_once(REQUEST, new_id(), "k", uow))
    await memory.run(lambda uow: order_steps.approve(first.order_id, uow))
    sent = len(memory.messages)
    memory.put(CONSUMERS, ConsumerReplica(ASHA, "Asha", "Rao", "BLOCKED", 2))
    assert await memory.run(lambda uow: create_order_once(REQUEST, new_id(), "k", uow)) == first
    assert len(memory.messages) == sent


async def test_a_key_is_for_one_request_of_one_consumer(memory):
    first = await memory.run(lambda uow: create_order_once(REQUEST, new_id(), "k", uow))
    other = replace(REQUEST, line_items=(RequestedLineItem("1", 3),))
    with pytest.raises(KeyUsedOtherwise):
        await memory.run(lambda uow: create_order_once(other, new_id(), "k", uow))
    of_another = replace(REQUEST, consumer_id=new_id())
    assert await memory.run(lambda uow: create_order_once(of_another, new_id(), "k", uow)) != first


async def test_an_id_of_the_clients_own_creates_once(memory):
    order_id = new_id()
    _, created = await memory.run(lambda uow: put_order(REQUEST, order_id, uow))
    order, again = await memory.run(lambda uow: put_order(REQUEST, order_id, uow))
    assert (created, again, order.id) == (True, False, order_id)
    assert history(memory, order_id) == ["APPROVAL_PENDING"]
    other = replace(REQUEST, delivery=replace(DELIVERY, time=datetime(2031, 1, 1, tzinfo=UTC)))
    with pytest.raises(OrderIdTaken):
        await memory.run(lambda uow: put_order(other, order_id, uow))


async def test_nothing_is_delivered_in_the_past(memory):
    late = replace(REQUEST, delivery=replace(DELIVERY, time=datetime(2020, 1, 1, tzinfo=UTC)))
    with pytest.raises(DeliveryTimeInThePast, match="deliveryTime: must be later than now, which is 2"):
        await memory.run(lambda uow: put_order(late, new_id(), uow))
    with pytest.raises(DeliveryTimeInThePast):
        await memory.run(lambda uow: create_order_once(late, new_id(), "k", uow))


async def test_a_repetition_gets_its_old_answer_when_the_time_of_delivery_has_passed(memory):
    late = replace(REQUEST, delivery=replace(DELIVERY, time=datetime(2020, 1, 1, tzinfo=UTC)))
    made = Order.create(
        id=new_id(),
        consumer_id=ASHA,
        restaurant_id=SPICE,
        restaurant_name="Spice",
        line_items=price(MENU, late.line_items),
        delivery=late.delivery,
        fingerprint=late.fingerprint,
    )
    key = IdempotencyKey(scoped(late, "k"), ASHA, late.fingerprint, made.id, made.order_total, datetime.now(UTC))
    memory.put(ORDERS, made)
    memory.put(IDEMPOTENCY_KEYS, key)
    assert await memory.run(lambda uow: put_order(late, made.id, uow)) == (made, False)
    assert (await memory.run(lambda uow: create_order_once(late, new_id(), "k", uow))).order_id == made.id


async def test_cancelling_answers_with_the_new_state_and_asks_the_kitchen_of_the_right_restaurant(memory, approved):
    order = await memory.run(lambda uow: cancel_order(approved, uow))
    assert order.state is OrderState.CANCEL_PENDING
    assert memory.sent() == [BeginCancelTicket(order_id=approved, restaurant_id=SPICE)]


async def test_a_second_saga_on_the_same_order_is_refused(memory, approved):
    await memory.run(lambda uow: cancel_order(approved, uow))
    sent = len(memory.messages)
    with pytest.raises(WrongState):
        await memory.run(lambda uow: cancel_order(approved, uow))
    with pytest.raises(WrongState):
        await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("1", 1)], uow))
    assert len(memory.messages) == sent


async def test_revising_proposes_and_asks_consumer_for_the_new_total(memory, approved):
    order = await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("2", 3)], uow))
    assert (order.state, order.order_total) == (OrderState.REVISION_PENDING, Money.of("9.00"))
    proposed, verify = memory.sent()
    assert isinstance(proposed, events.OrderRevisionProposed)
    assert (proposed.order_total, proposed.revised_total) == (Money.of("9.00"), Money.of("37.05"))
    assert [(i.name, i.line_total) for i in proposed.revised_line_items] == [("Curry", Money.of("37.05"))]
    assert verify == VerifyConsumer(consumer_id=ASHA, order_id=approved, order_total=Money.of("37.05"))


async def test_a_blocked_consumer_cannot_revise_not_even_to_less(memory, approved):
    memory.put(CONSUMERS, ConsumerReplica(ASHA, "Asha", "Rao", "BLOCKED", 2))
    with pytest.raises(ConsumerIsBlocked):
        await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("1", 1)], uow))
    assert (memory.get(ORDERS, approved).state, memory.messages) == (OrderState.APPROVED, [])
    await memory.run(lambda uow: cancel_order(approved, uow))
    assert memory.get(ORDERS, approved).state is OrderState.CANCEL_PENDING


async def test_revising_checks_the_menu_for_what_is_new(memory, approved):
    with pytest.raises(UnknownMenuItem):
        await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("9", 1)], uow))


async def test_what_stays_keeps_the_name_and_the_price_of_the_order(memory, approved):
    today = {"1": MenuItem("1", "Soup of the day", Money.of("20.00")), "2": MenuItem("2", "Curry", Money.of("13.00"))}
    memory.put(RESTAURANTS, RestaurantReplica(SPICE, "Spice", today, 2))
    order = await memory.run(
        lambda uow: revise_order(approved, [RequestedLineItem("1", 3), RequestedLineItem("2", 1)], uow)
    )
    assert order.revision is not None
    assert [(i.name, i.price) for i in order.revision.line_items] == [
        ("Soup", Money.of("4.50")),
        ("Curry", Money.of("13.00")),
    ]
    assert order.revision.order_total == Money.of("26.50")


async def test_without_a_menu_what_the_order_has_may_stay_and_nothing_else(memory, approved):
    del memory.aggregates[RESTAURANTS, SPICE]
    for more in (RequestedLineItem("2", 1), RequestedLineItem("1", 3)):
        with pytest.raises(UnknownRestaurant):
            await memory.run(lambda uow, more=more: revise_order(approved, [more], uow))
    order = await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("1", 1)], uow))
    assert order.revision is not None
    assert order.revision.order_total == Money.of("4.50")


async def test_orders_that_do_not_exist(memory):
    with pytest.raises(OrderNotFound):
        await memory.run(lambda uow: cancel_order(new_id(), uow))
    with pytest.raises(OrderNotFound):
        await memory.run(lambda uow: revise_order(new_id(), [RequestedLineItem("1", 1)], uow))
    with pytest.raises(LookupError):
        await memory.run(lambda uow: order_steps.approve(new_id(), uow))


async def twice(memory, step):
    """Run a step, and once more: the repetition must leave nothing behind."""
    await memory.run(step)
    left = len(memory.messages), len(memory.appended)
    await memory.run(step)
    assert (len(memory.messages), len(memory.appended)) == left


async def test_rejecting_tells_why_and_who(memory):
    order_id = new_id()
    await memory.run(lambda uow: put_order(REQUEST, order_id, uow))
    memory.messages.clear()
    await twice(memory, lambda uow: order_steps.reject(order_id, "LIMIT_EXCEEDED", "consumer", uow))
    (rejected,) = memory.sent()
    assert isinstance(rejected, events.OrderRejected)
    assert (rejected.reason, rejected.service) == ("LIMIT_EXCEEDED", "consumer")
    assert history(memory, order_id) == ["APPROVAL_PENDING", "REJECTED"]
    assert json.loads(memory.appended[-1][1]["rejection"]) == {"reason": "LIMIT_EXCEEDED", "service": "consumer"}


async def test_a_cancellation_confirmed(memory, approved):
    await memory.run(lambda uow: cancel_order(approved, uow))
    await twice(memory, lambda uow: order_steps.confirm_cancel(approved, uow))
    assert isinstance(memory.sent()[-1], events.OrderCancelled)
    assert history(memory, approved) == ["APPROVAL_PENDING", "APPROVED", "CANCEL_PENDING", "CANCELLED"]


async def test_a_cancellation_undone(memory, approved):
    await memory.run(lambda uow: cancel_order(approved, uow))
    await twice(memory, lambda uow: order_steps.undo_cancel(approved, "WRONG_STATE", "kitchen", uow))
    assert history(memory, approved) == ["APPROVAL_PENDING", "APPROVED", "CANCEL_PENDING", "APPROVED"]


async def test_a_revision_confirmed(memory, approved):
    await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("2", 1)], uow))
    await twice(memory, lambda uow: order_steps.confirm_revise(approved, uow))
    revised = memory.sent()[-1]
    assert isinstance(revised, events.OrderRevised)
    assert (revised.order_total, revised.line_items[0].name) == (Money.of("12.35"), "Curry")
    assert revised.line_items[0].line_total == Money.of("12.35")
    assert history(memory, approved)[2:] == ["REVISION_PENDING", "APPROVED"]


async def test_a_revision_undone(memory, approved):
    await memory.run(lambda uow: revise_order(approved, [RequestedLineItem("2", 1)], uow))
    await twice(memory, lambda uow: order_steps.undo_revise(approved, "LIMIT_EXCEEDED", "consumer", uow))
    assert memory.get(ORDERS, approved).order_total == Money.of("9.00")
    assert json.loads(memory.appended[-1][1]["change_refusal"]) == {"reason": "LIMIT_EXCEEDED", "service": "consumer"}
