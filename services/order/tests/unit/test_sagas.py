"""The three sagas as conversations: what they ask, in which order, and what they take back when it goes wrong."""

from datetime import UTC, datetime

import pytest
from ftgo_contracts.accounting import commands as a
from ftgo_contracts.consumer import commands as c
from ftgo_contracts.kitchen import commands as k
from ftgo_contracts.money import Money
from ftgo_messaging import Failure, Success
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.registry import by_class, by_name
from ftgo_messaging.sagas.instance import SagaState
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.testing.sagas import SagaConversation
from ftgo_order.adapters.replicas import RESTAURANTS, RestaurantReplica
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application.cancel_order import cancel_order
from ftgo_order.application.create_order import CreateOrder, put_order
from ftgo_order.application.revise_order import revise_order
from ftgo_order.domain.order import Address, Delivery, OrderState, Refusal, WrongState
from ftgo_order.domain.pricing import MenuItem, RequestedLineItem
from ftgo_order.sagas import ORCHESTRATOR

ORDER, CONSUMER, RESTAURANT = (f"01900000-0000-7000-8000-00000000000{n}" for n in range(3))
DELIVERY = Delivery(datetime(2030, 1, 1, tzinfo=UTC), Address("1 Main Street", None, "Oakland", "CA", "94611"))

FORWARD: dict[str, list[type]] = {
    "create": [c.VerifyConsumer, k.CreateTicket, a.AuthorizePayment, k.ConfirmCreateTicket],
    "cancel": [k.BeginCancelTicket, a.ReverseAuthorization, k.ConfirmCancelTicket],
    "revise": [c.VerifyConsumer, k.BeginReviseTicket, a.ReviseAuthorization, k.ConfirmReviseTicket],
}
PIVOT = {"create": a.AuthorizePayment, "cancel": a.ReverseAuthorization, "revise": a.ReviseAuthorization}
UNDO: dict[type, type] = {
    k.CreateTicket: k.CancelCreateTicket,
    k.BeginCancelTicket: k.UndoBeginCancelTicket,
    k.BeginReviseTicket: k.UndoBeginReviseTicket,
}
DONE = {"create": OrderState.APPROVED, "cancel": OrderState.CANCELLED, "revise": OrderState.APPROVED}
UNDONE = {"create": OrderState.REJECTED, "cancel": OrderState.APPROVED, "revise": OrderState.APPROVED}
PENDING = {
    "create": OrderState.APPROVAL_PENDING,
    "cancel": OrderState.CANCEL_PENDING,
    "revise": OrderState.REVISION_PENDING,
}


def menu(price: str, version: int) -> RestaurantReplica:
    items = {"1": MenuItem("1", "Soup", Money.of(price)), "2": MenuItem("2", "Curry", Money.of("12.00"))}
    return RestaurantReplica(RESTAURANT, "Ajanta", items, version)


async def begun(name: str) -> tuple[Memory, SagaConversation]:
    """The saga as its use case starts it; before it, for cancel and revise, a creation that went well."""
    memory = Memory("order")
    memory.put(RESTAURANTS, menu("4.50", 1))
    request = CreateOrder(CONSUMER, RESTAURANT, DELIVERY, (RequestedLineItem("1", 2),))
    await memory.run(lambda uow: put_order(request, ORDER, uow))
    saga = conversation(memory)
    if name == "create":
        return memory, saga
    while not saga.instance.state.final:
        await saga.reply(Success())
    if name == "cancel":
        await memory.run(lambda uow: cancel_order(ORDER, uow))
    else:
        await memory.run(lambda uow: revise_order(ORDER, (RequestedLineItem("2", 3),), uow))
    return memory, conversation(memory)


def conversation(memory: Memory) -> SagaConversation:
    """With the saga that was started last."""
    started = [x.headers[m.SAGA_ID] for x in memory.messages if m.SAGA_ID in x.headers]
    return SagaConversation(ORCHESTRATOR, memory, started[-1])


def asked(saga: SagaConversation) -> list[type]:
    return [by_name(x.type).cls for x in saga.asked]


def state(memory: Memory) -> OrderState:
    return memory.get(ORDERS, ORDER).state


def refusal(memory: Memory) -> Refusal | None:
    """What the client is told of the order or of its last change."""
    order = memory.get(ORDERS, ORDER)
    return order.rejection or order.change_refusal


@pytest.mark.parametrize("name", FORWARD)
async def test_it_goes_through_its_steps(name: str) -> None:
    memory, saga = await begun(name)
    for command in FORWARD[name]:
        assert isinstance(saga.last_command(), command)
        assert state(memory) is PENDING[name]
        await saga.reply(Success())
    assert asked(saga) == FORWARD[name]
    assert saga.instance.state is SagaState.COMPLETED
    assert state(memory) is DONE[name]
    assert any(isinstance(x, c.NotifyConsumer) for x in memory.sent())


UP_TO_PIVOT = [(n, i) for n, steps in FORWARD.items() for i in range(steps.index(PIVOT[n]) + 1)]


@pytest.mark.parametrize(("name", "step"), UP_TO_PIVOT)
async def test_a_refusal_takes_back_what_was_done_before(name: str, step: int) -> None:
    memory, saga = await begun(name)
    for _ in range(step):
        await saga.reply(Success())
    await saga.reply(Failure(reason="NO"))
    while not saga.instance.state.final:
        assert state(memory) is PENDING[name]
        await saga.reply(Success())
    done = FORWARD[name][:step]
    assert asked(saga) == [*FORWARD[name][: step + 1], *(UNDO[x] for x in reversed(done) if x in UNDO)]
    assert state(memory) is UNDONE[name]
    assert refusal(memory) == Refusal("NO", by_class(FORWARD[name][step]).name.split(".")[1])


@pytest.mark.parametrize(("name", "step"), UP_TO_PIVOT)
async def test_silence_takes_back_what_may_have_been_done(name: str, step: int) -> None:
    """Also at the pivot of a creation: the payment may be authorized. The other pivots are asked until they answer."""
    memory, saga = await begun(name)
    for _ in range(step):
        await saga.reply(Success())
    for _ in range(6):
        await saga.overdue()
    silent = FORWARD[name][step]
    if silent is PIVOT[name] and name != "create":
        assert (saga.instance.state, asked(saga)[-1]) == (SagaState.RUNNING, silent)
        return
    while not saga.instance.state.final:
        await saga.reply(Success())
    undo = UNDO | {a.AuthorizePayment: a.ReverseAuthorization}
    tried = FORWARD[name][: step + 1]
    assert list(dict.fromkeys(asked(saga))) == [*tried, *(undo[x] for x in reversed(tried) if x in undo)]
    assert state(memory) is UNDONE[name]
    assert refusal(memory) == Refusal("TIMED_OUT", by_class(silent).name.split(".")[1])


@pytest.mark.parametrize("name", FORWARD)
async def test_nothing_else_begins_meanwhile(name: str) -> None:
    """The pending state is a lock, in every step of every saga: the second is refused, and starts nothing."""
    memory, saga = await begun(name)
    while not saga.instance.state.final:
        before = len(memory.messages)
        with pytest.raises(WrongState):
            await memory.run(lambda uow: cancel_order(ORDER, uow))
        with pytest.raises(WrongState):
            await memory.run(lambda uow: revise_order(ORDER, (RequestedLineItem("1", 1),), uow))
        assert len(memory.messages) == before
        await saga.reply(Success())


async def test_a_menu_that_changes_on_the_way_changes_no_price() -> None:
    memory, saga = await begun("create")
    memory.put(RESTAURANTS, menu("99.00", 2))
    while not saga.instance.state.final:
        await saga.reply(Success())
    (payment,) = [x for x in memory.sent() if isinstance(x, a.AuthorizePayment)]
    assert payment.amount == memory.get(ORDERS, ORDER).order_total == Money.of("9.00")
    # In a revision what stays keeps its price, and what is new has that of the time of the request.
    memory.put(RESTAURANTS, menu("99.00", 2))
    both = (RequestedLineItem("1", 1), RequestedLineItem("2", 1))
    await memory.run(lambda uow: revise_order(ORDER, both, uow))
    memory.put(RESTAURANTS, menu("1.00", 3))
    saga = conversation(memory)
    while not saga.instance.state.final:
        await saga.reply(Success())
    asked_for = [x for x in memory.sent() if isinstance(x, (c.VerifyConsumer, a.ReviseAuthorization))]
    assert (asked_for[-2].order_total, asked_for[-1].amount) == (Money.of("16.50"), Money.of("16.50"))
    assert memory.get(ORDERS, ORDER).order_total == Money.of("16.50")


async def test_every_command_of_cancel_and_revise_names_the_restaurant() -> None:
    for name in ("cancel", "revise"):
        _, saga = await begun(name)
        while not saga.instance.state.final:
            await saga.reply(Success())
        kitchen = [x for x in saga.asked if x.channel == "kitchen.commands"]
        assert {codec.decode(x.body, by_name(x.type).cls).restaurant_id for x in kitchen} == {RESTAURANT}
