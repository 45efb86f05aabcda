"""The Ticket state machine in all states, and the commands of the sagas: repeated, too early, too late."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ftgo_contracts.kitchen import commands as c
from ftgo_contracts.kitchen import events as e
from ftgo_contracts.kitchen.replies import TicketCreated, TicketRefused
from ftgo_contracts.money import Money
from ftgo_kitchen.adapters.tables import RESTAURANTS, RESTAURANTS_TO_READ, TICKETS, ticket_history
from ftgo_kitchen.application import restaurants, tickets
from ftgo_kitchen.domain.restaurant import Address, InvalidMenu, MenuItem, Restaurant, RestaurantNotFound
from ftgo_kitchen.domain.ticket import LineItem, ReadyByInThePast, Ticket, TicketNotFound, TicketState, WrongState
from ftgo_kitchen.messaging import command_handlers as h
from ftgo_messaging.ids import new_id
from ftgo_messaging.testing.memory import Memory

S = TicketState
ID, RESTAURANT = new_id(), new_id()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINES = (LineItem("1", "Chicken Vindaloo", 2),)
REVISED = (LineItem("2", "Naan", 1),)
WIRE = (c.TicketLineItem("1", "Chicken Vindaloo", 2),)
WIRE_REVISED = (c.TicketLineItem("2", "Naan", 1),)
AJANTA = Restaurant.create(RESTAURANT, "Ajanta", Address("1 High St", None, "Oakland", "CA", "94611"), ())

Transition = Callable[[Ticket], Ticket]
# transition -> states that it changes, with the state after; all others are refused or, if named, left alone
TABLE: dict[str, tuple[Transition, dict[TicketState, TicketState], set[TicketState]]] = {
    "confirm_create": (
        Ticket.confirm_create,
        {S.CREATE_PENDING: S.AWAITING_ACCEPTANCE},
        set(S) - {S.CREATE_PENDING, S.CANCELLED},
    ),
    "cancel_create": (Ticket.cancel_create, {S.CREATE_PENDING: S.CANCELLED}, set(S) - {S.CREATE_PENDING}),
    "begin_cancel": (
        Ticket.begin_cancel,
        {S.AWAITING_ACCEPTANCE: S.CANCEL_PENDING, S.ACCEPTED: S.CANCEL_PENDING},
        {S.CANCEL_PENDING},
    ),
    "undo_cancel": (Ticket.undo_cancel, {S.CANCEL_PENDING: S.ACCEPTED}, set(S) - {S.CANCEL_PENDING}),
    "confirm_cancel": (Ticket.confirm_cancel, {S.CANCEL_PENDING: S.CANCELLED}, {S.CANCELLED}),
    "begin_revise": (
        Ticket.begin_revise,
        {S.AWAITING_ACCEPTANCE: S.REVISION_PENDING, S.ACCEPTED: S.REVISION_PENDING},
        {S.REVISION_PENDING},
    ),
    "undo_revise": (Ticket.undo_revise, {S.REVISION_PENDING: S.ACCEPTED}, set(S) - {S.REVISION_PENDING}),
    "confirm_revise": (lambda t: t.confirm_revise(REVISED), {S.REVISION_PENDING: S.ACCEPTED}, set()),
    "accept": (lambda t: t.accept(NOW + timedelta(minutes=5), NOW), {S.AWAITING_ACCEPTANCE: S.ACCEPTED}, set()),
    "start_preparing": (Ticket.start_preparing, {S.ACCEPTED: S.PREPARING}, set()),
    "be_ready": (Ticket.be_ready, {S.PREPARING: S.READY_FOR_PICKUP}, set()),
    "be_picked_up": (Ticket.be_picked_up, {S.READY_FOR_PICKUP: S.PICKED_UP}, set()),
}


def ticket(state: TicketState) -> Ticket:
    before = S.ACCEPTED if state in {S.CANCEL_PENDING, S.REVISION_PENDING} else None
    return replace(Ticket.create(ID, RESTAURANT, LINES), state=state, before=before)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("state", S)
def test_every_transition_in_every_state(name: str, state: TicketState) -> None:
    transition, changes, unchanged = TABLE[name]
    before = ticket(state)
    if state in changes:
        after = transition(before)
        assert (after.state, after.version) == (changes[state], before.version + 1)
    elif state in unchanged:
        assert transition(before) is before
    else:
        with pytest.raises(WrongState):
            transition(before)


def test_pending_goes_back_to_where_it_came_from() -> None:
    for state in (S.AWAITING_ACCEPTANCE, S.ACCEPTED):
        assert ticket(state).begin_cancel().undo_cancel().state is state
        revised = ticket(state).begin_revise().confirm_revise(REVISED)
        assert (revised.state, revised.line_items, revised.before) == (state, REVISED, None)
        assert revised.confirm_revise(REVISED) is revised


def test_ready_by_must_be_ahead() -> None:
    with pytest.raises(ReadyByInThePast):
        ticket(S.AWAITING_ACCEPTANCE).accept(NOW, NOW)


def kitchen(state: TicketState | None = None) -> Memory:
    memory = Memory()
    memory.put(RESTAURANTS, AJANTA)
    memory.put(RESTAURANTS_TO_READ, AJANTA)
    if state is not None:
        memory.put(TICKETS, ticket(state))
    return memory


CREATE = c.CreateTicket(order_id=ID, restaurant_id=RESTAURANT, line_items=WIRE)
CONFIRM = c.ConfirmCreateTicket(ticket_id=ID)
CANCEL = c.CancelCreateTicket(ticket_id=ID)


async def test_a_ticket_is_told_when_the_cooks_see_it() -> None:
    memory = kitchen()
    for _ in range(2):  # a repetition with a new message id
        assert await memory.run(lambda uow: h.create_ticket(CREATE, uow)) == TicketCreated(ticket_id=ID)
    assert memory.messages == []
    for _ in range(2):
        await memory.run(lambda uow: h.confirm_create_ticket(CONFIRM, uow))
    (event,) = memory.sent()
    assert isinstance(event, e.TicketCreated)
    assert event.line_items == WIRE
    states = [row["state"] for table, row in memory.appended if table is ticket_history]
    assert states == ["CREATE_PENDING", "AWAITING_ACCEPTANCE"]


async def test_an_unknown_restaurant_refuses() -> None:
    reply = await Memory().run(lambda uow: h.create_ticket(CREATE, uow))
    assert reply == TicketRefused(reason="UNKNOWN_RESTAURANT")


async def test_a_compensation_before_its_original_makes_the_original_harmless() -> None:
    memory = kitchen()
    for _ in range(2):
        await memory.run(lambda uow: h.cancel_create_ticket(CANCEL, uow))
    assert await memory.run(lambda uow: h.create_ticket(CREATE, uow)) == TicketRefused(reason="CANCELLED")
    with pytest.raises(WrongState):
        await memory.run(lambda uow: h.confirm_create_ticket(CONFIRM, uow))
    assert memory.get(TICKETS, ID).state is S.CANCELLED
    assert memory.messages == []


async def test_cancelled_creation_is_told() -> None:
    memory = kitchen(S.CREATE_PENDING)
    await memory.run(lambda uow: h.cancel_create_ticket(CANCEL, uow))
    assert [type(x) for x in memory.sent()] == [e.TicketCancelled]
    with pytest.raises(WrongState):
        await memory.run(lambda uow: h.confirm_create_ticket(CONFIRM, uow))


async def test_cancel_and_revise_by_the_sagas() -> None:
    ids = {"order_id": ID, "restaurant_id": RESTAURANT}
    memory = kitchen(S.ACCEPTED)
    await memory.run(
        lambda uow: h.begin_revise_ticket(c.BeginReviseTicket(**ids, revised_line_items=WIRE_REVISED), uow)
    )
    with pytest.raises(WrongState):
        await memory.run(lambda uow: h.begin_cancel_ticket(c.BeginCancelTicket(**ids), uow))
    await memory.run(
        lambda uow: h.confirm_revise_ticket(c.ConfirmReviseTicket(**ids, revised_line_items=WIRE_REVISED), uow)
    )
    assert memory.get(TICKETS, ID).line_items == REVISED
    await memory.run(lambda uow: h.begin_revise_ticket(c.BeginReviseTicket(**ids, revised_line_items=WIRE), uow))
    await memory.run(lambda uow: h.undo_begin_revise_ticket(c.UndoBeginReviseTicket(**ids), uow))
    assert memory.get(TICKETS, ID).line_items == REVISED
    await memory.run(lambda uow: h.begin_cancel_ticket(c.BeginCancelTicket(**ids), uow))
    await memory.run(lambda uow: h.undo_begin_cancel_ticket(c.UndoBeginCancelTicket(**ids), uow))
    assert memory.get(TICKETS, ID).state is S.ACCEPTED
    await memory.run(lambda uow: h.begin_cancel_ticket(c.BeginCancelTicket(**ids), uow))
    for _ in range(2):
        await memory.run(lambda uow: h.confirm_cancel_ticket(c.ConfirmCancelTicket(**ids), uow))
    assert [type(x) for x in memory.sent()] == [e.TicketRevised, e.TicketCancelled]


async def test_undo_succeeds_where_nothing_has_begun() -> None:
    ids = {"order_id": ID, "restaurant_id": RESTAURANT}
    memory = kitchen()
    await memory.run(lambda uow: h.undo_begin_cancel_ticket(c.UndoBeginCancelTicket(**ids), uow))
    await memory.run(lambda uow: h.undo_begin_revise_ticket(c.UndoBeginReviseTicket(**ids), uow))
    with pytest.raises(TicketNotFound):
        await memory.run(lambda uow: h.begin_cancel_ticket(c.BeginCancelTicket(**ids), uow))


async def test_the_way_of_a_ticket_through_the_kitchen() -> None:
    memory = kitchen(S.AWAITING_ACCEPTANCE)
    await memory.run(lambda uow: tickets.accept(ID, datetime.now(UTC) + timedelta(minutes=20), uow))
    await memory.run(lambda uow: tickets.start_preparing(ID, uow))
    await memory.run(lambda uow: tickets.be_ready(ID, uow))
    await memory.run(lambda uow: tickets.be_picked_up(ID, uow))
    assert [type(x) for x in memory.sent()] == [
        e.TicketAccepted,
        e.TicketPreparationStarted,
        e.TicketReadyForPickup,
        e.TicketPickedUp,
    ]


async def test_menus() -> None:
    memory = kitchen()
    menu = (MenuItem("1", "Chicken Vindaloo", Money.of("12.34")),)
    for _ in range(2):
        await memory.run(lambda uow: restaurants.revise_menu(RESTAURANT, menu, uow))
    (event,) = memory.sent()
    assert isinstance(event, e.RestaurantMenuRevised)
    assert event.menu_items[0].price == Money.of("12.34")
    with pytest.raises(InvalidMenu):
        await memory.run(lambda uow: restaurants.revise_menu(RESTAURANT, menu * 2, uow))
    with pytest.raises(RestaurantNotFound):
        await memory.run(lambda uow: restaurants.revise_menu(new_id(), menu, uow))
