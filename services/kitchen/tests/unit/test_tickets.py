"""The Ticket state machine in all states, and the commands of the sagas: repeated, too early, too late."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

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
from ftgo_messaging import Message, new_id
from ftgo_messaging.messages.message import SAGA_ID, TYPE
from ftgo_messaging.messages.registry import by_class
from ftgo_messaging.testing.memory import Memory

S = TicketState
ID, RESTAURANT, SAGA, OTHER = new_id(), new_id(), new_id(), new_id()
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
        lambda t: t.begin_cancel(SAGA),
        {S.AWAITING_ACCEPTANCE: S.CANCEL_PENDING, S.ACCEPTED: S.CANCEL_PENDING},
        {S.CANCEL_PENDING},
    ),
    "undo_cancel": (lambda t: t.undo_cancel(SAGA), {S.CANCEL_PENDING: S.ACCEPTED}, set(S) - {S.CANCEL_PENDING}),
    "confirm_cancel": (lambda t: t.confirm_cancel(SAGA), {S.CANCEL_PENDING: S.CANCELLED}, {S.CANCELLED}),
    "begin_revise": (
        lambda t: t.begin_revise(SAGA),
        {S.AWAITING_ACCEPTANCE: S.REVISION_PENDING, S.ACCEPTED: S.REVISION_PENDING},
        {S.REVISION_PENDING},
    ),
    "undo_revise": (lambda t: t.undo_revise(SAGA), {S.REVISION_PENDING: S.ACCEPTED}, set(S) - {S.REVISION_PENDING}),
    "confirm_revise": (lambda t: t.confirm_revise(SAGA, REVISED), {S.REVISION_PENDING: S.ACCEPTED}, set()),
    "accept": (lambda t: t.accept(NOW + timedelta(minutes=5), NOW), {S.AWAITING_ACCEPTANCE: S.ACCEPTED}, set()),
    "start_preparing": (Ticket.start_preparing, {S.ACCEPTED: S.PREPARING}, set()),
    "be_ready": (Ticket.be_ready, {S.PREPARING: S.READY_FOR_PICKUP}, set()),
    "be_picked_up": (Ticket.be_picked_up, {S.READY_FOR_PICKUP: S.PICKED_UP}, set()),
}


def ticket(state: TicketState) -> Ticket:
    before = S.ACCEPTED if state in {S.CANCEL_PENDING, S.REVISION_PENDING} else None
    return replace(Ticket.create(ID, RESTAURANT, LINES), state=state, before=before, change=before and SAGA)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("state", S)
def test_every_transition_in_every_state(name: str, state: TicketState) -> None:
    transition, changes, unchanged = TABLE[name]
    before = ticket(state)
    if state in changes:
        after = transition(before)
        assert (after.state, after.version) == (changes[state], before.version + 1)
    elif state in unchanged:
        after = transition(before)
        assert after == (replace(before, closed=(SAGA,)) if name.startswith("undo") else before)
        assert transition(after) is after
    else:
        with pytest.raises(WrongState):
            transition(before)


def test_pending_goes_back_to_where_it_came_from() -> None:
    for state in (S.AWAITING_ACCEPTANCE, S.ACCEPTED):
        undone = ticket(state).begin_cancel(SAGA).undo_cancel(SAGA)
        assert (undone.state, undone.before, undone.change, undone.closed) == (state, None, None, (SAGA,))
        revised = ticket(state).begin_revise(SAGA).confirm_revise(SAGA, REVISED)
        assert (revised.state, revised.line_items, revised.before, revised.change) == (state, REVISED, None, None)
        assert revised.confirm_revise(SAGA, REVISED) is revised


CHANGES: list[tuple[Callable[..., Ticket], Callable[..., Ticket], Callable[..., Ticket]]] = [
    (Ticket.begin_cancel, Ticket.undo_cancel, Ticket.confirm_cancel),
    (Ticket.begin_revise, Ticket.undo_revise, lambda t, change: t.confirm_revise(change, REVISED)),
]


@pytest.mark.parametrize(("begin", "undo", "confirm"), CHANGES)
def test_what_was_taken_back_before_it_began_does_not_begin(begin, undo, confirm) -> None:
    undone = undo(ticket(S.ACCEPTED), SAGA)
    assert (undone.state, undone.version) == (S.ACCEPTED, 1)
    with pytest.raises(WrongState):
        begin(undone, SAGA)
    assert begin(undone, OTHER).change == OTHER  # another one may


@pytest.mark.parametrize(("begin", "undo", "confirm"), CHANGES)
def test_a_saga_that_is_over_does_not_touch_what_another_has_begun(begin, undo, confirm) -> None:
    """The late ones come from a dead letter that was redriven, say."""
    over = undo(begin(ticket(S.ACCEPTED), SAGA), SAGA)
    pending = begin(over, OTHER)
    assert undo(pending, SAGA) is pending
    for late in (begin, confirm):
        try:
            after = late(pending, SAGA)
        except WrongState:
            continue
        assert after is pending
    assert pending.line_items == LINES
    assert confirm(pending, OTHER).change is None


def test_a_late_undo_closes_its_own_change_only() -> None:
    pending = ticket(S.ACCEPTED).begin_cancel(OTHER)
    after = pending.undo_cancel(SAGA)
    assert after == replace(pending, closed=(SAGA,))
    assert after.confirm_cancel(OTHER).state is S.CANCELLED


def test_it_remembers_twenty_changes() -> None:
    revised = ticket(S.ACCEPTED)
    for number in range(30):
        revised = revised.begin_revise(f"{number}").undo_revise(f"{number}")
    assert revised.closed == tuple(f"{number}" for number in range(10, 30))


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


IDS = {"order_id": ID, "restaurant_id": RESTAURANT}
BEGIN_CANCEL, UNDO_CANCEL = c.BeginCancelTicket(**IDS), c.UndoBeginCancelTicket(**IDS)
BEGIN_REVISE = c.BeginReviseTicket(**IDS, revised_line_items=WIRE_REVISED)
UNDO_REVISE = c.UndoBeginReviseTicket(**IDS)
CONFIRM_REVISE = c.ConfirmReviseTicket(**IDS, revised_line_items=WIRE_REVISED)
CONFIRM_CANCEL = c.ConfirmCancelTicket(**IDS)


async def told(memory: Memory, command: Any, saga: str) -> None:
    """The saga with this id tells the kitchen to do that, under a new message id."""
    kind = by_class(type(command))
    message = Message(new_id(), "kitchen.commands", ID, {TYPE: kind.name, SAGA_ID: saga}, b"")
    handler = h.COMMANDS.find(kind.name)
    assert handler is not None
    await memory.run(lambda uow: handler.run(command, uow, message), message)


async def test_cancel_and_revise_by_the_sagas() -> None:
    memory = kitchen(S.ACCEPTED)
    await told(memory, BEGIN_REVISE, "a")
    with pytest.raises(WrongState):
        await told(memory, BEGIN_CANCEL, "b")
    await told(memory, CONFIRM_REVISE, "a")
    assert memory.get(TICKETS, ID).line_items == REVISED
    await told(memory, BEGIN_REVISE, "c")
    await told(memory, UNDO_REVISE, "c")
    assert memory.get(TICKETS, ID).line_items == REVISED
    await told(memory, BEGIN_CANCEL, "d")
    await told(memory, UNDO_CANCEL, "d")
    assert memory.get(TICKETS, ID).state is S.ACCEPTED
    await told(memory, BEGIN_CANCEL, "e")
    for _ in range(2):
        await told(memory, CONFIRM_CANCEL, "e")
    assert [type(x) for x in memory.sent()] == [e.TicketRevised, e.TicketCancelled]


async def test_undo_succeeds_where_nothing_has_begun() -> None:
    memory = kitchen()
    await told(memory, UNDO_CANCEL, "a")
    await told(memory, UNDO_REVISE, "a")
    with pytest.raises(TicketNotFound):
        await told(memory, BEGIN_CANCEL, "a")


@pytest.mark.parametrize(("begin", "undo"), [(BEGIN_CANCEL, UNDO_CANCEL), (BEGIN_REVISE, UNDO_REVISE)])
async def test_a_beginning_after_its_compensation_is_refused_and_leaves_no_trace(begin: Any, undo: Any) -> None:
    memory = kitchen(S.AWAITING_ACCEPTANCE)
    for _ in range(2):
        await told(memory, undo, "a")
    before = memory.get(TICKETS, ID)
    with pytest.raises(WrongState):
        await told(memory, begin, "a")
    assert memory.get(TICKETS, ID) == before
    assert (before.state, before.version, memory.appended, memory.messages) == (S.AWAITING_ACCEPTANCE, 1, [], [])


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
