"""What happens to tickets: asked by the sagas of Order, and by the people in the kitchen."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from ftgo_contracts.kitchen import events
from ftgo_contracts.kitchen.commands import CreateTicket, TicketLineItem
from ftgo_messaging import UnitOfWork

from ftgo_kitchen.adapters.tables import RESTAURANTS_TO_READ, TICKETS, ticket_history
from ftgo_kitchen.domain.ticket import LineItem, Ticket, TicketNotFound, TicketState, WrongState

Transition = Callable[[Ticket], Ticket]


class UnknownRestaurant(WrongState):
    """A ticket cannot be made for a restaurant that does not exist."""

    slug = "unknown-restaurant"


class AlreadyCancelled(WrongState):
    """The ticket's creation was cancelled before it arrived."""

    slug = "cancelled"


async def create_ticket(command: CreateTicket, uow: UnitOfWork) -> Ticket:
    """Make the ticket, not yet visible to the cooks. Repeated with a new message id it finds its ticket again; after
    its own compensation it is refused."""
    ticket = await uow.find(TICKETS, command.order_id)
    if ticket is not None:
        if ticket.state is TicketState.CANCELLED:
            raise AlreadyCancelled(f"The ticket {ticket.id} is cancelled.")
        return ticket
    if await uow.find(RESTAURANTS_TO_READ, command.restaurant_id) is None:
        raise UnknownRestaurant(f"There is no restaurant {command.restaurant_id}.")
    ticket = Ticket.create(command.order_id, command.restaurant_id, line_items(command.line_items))
    record(ticket, uow)
    return ticket


async def confirm_create(ticket_id: str, uow: UnitOfWork) -> None:
    """From now on the cooks see the ticket: that is when the others hear of it."""
    ticket = await _find(ticket_id, uow)
    confirmed = ticket.confirm_create()
    if confirmed is not ticket:
        record(confirmed, uow)
        _publish(events.TicketCreated(**_ids(confirmed), line_items=contract_lines(confirmed)), confirmed, uow)


async def cancel_create(ticket_id: str, uow: UnitOfWork) -> None:
    """Never refused. For a ticket that was never made it leaves a tombstone, and its late creation is refused."""
    ticket = await uow.find(TICKETS, ticket_id)
    if ticket is None:
        record(Ticket.never_made(ticket_id), uow)
        return
    cancelled = ticket.cancel_create()
    if cancelled is not ticket:
        record(cancelled, uow)
        _publish(events.TicketCancelled(**_ids(cancelled)), cancelled, uow)


async def move(ticket_id: str, transition: Transition, uow: UnitOfWork) -> Ticket:
    """A change of state that nobody else hears of: the pending states."""
    ticket = await _find(ticket_id, uow)
    moved = transition(ticket)
    if moved.version > ticket.version:
        record(moved, uow)
    elif moved is not ticket:
        uow.save(TICKETS, moved)  # a tombstone: nothing that the history should show
    return moved


async def undo(ticket_id: str, transition: Transition, uow: UnitOfWork) -> None:
    """A compensation: succeeds for a ticket that does not exist, as nothing has begun there."""
    if await uow.find(TICKETS, ticket_id) is not None:
        await move(ticket_id, transition, uow)


async def confirm_cancel(ticket_id: str, change: str, uow: UnitOfWork) -> None:
    await _move_and_tell(
        ticket_id, lambda t: t.confirm_cancel(change), lambda t: events.TicketCancelled(**_ids(t)), uow
    )


async def confirm_revise(ticket_id: str, change: str, revised: tuple[LineItem, ...], uow: UnitOfWork) -> None:
    await _move_and_tell(
        ticket_id,
        lambda t: t.confirm_revise(change, revised),
        lambda t: events.TicketRevised(**_ids(t), line_items=contract_lines(t)),
        uow,
    )


async def accept(ticket_id: str, ready_by: datetime, uow: UnitOfWork) -> Ticket:
    return await _move_and_tell(
        ticket_id,
        lambda t: t.accept(ready_by, datetime.now(UTC)),
        lambda t: events.TicketAccepted(**_ids(t), ready_by=ready_by),
        uow,
    )


async def start_preparing(ticket_id: str, uow: UnitOfWork) -> Ticket:
    return await _move_and_tell(
        ticket_id, Ticket.start_preparing, lambda t: events.TicketPreparationStarted(**_ids(t)), uow
    )


async def be_ready(ticket_id: str, uow: UnitOfWork) -> Ticket:
    return await _move_and_tell(ticket_id, Ticket.be_ready, lambda t: events.TicketReadyForPickup(**_ids(t)), uow)


async def be_picked_up(ticket_id: str, uow: UnitOfWork) -> Ticket:
    return await _move_and_tell(ticket_id, Ticket.be_picked_up, lambda t: events.TicketPickedUp(**_ids(t)), uow)


async def _move_and_tell(
    ticket_id: str, transition: Transition, event: Callable[[Ticket], events.TicketEvent], uow: UnitOfWork
) -> Ticket:
    ticket = await _find(ticket_id, uow)
    moved = transition(ticket)
    if moved is not ticket:
        record(moved, uow)
        _publish(event(moved), moved, uow)
    return moved


async def _find(ticket_id: str, uow: UnitOfWork) -> Ticket:
    ticket = await uow.find(TICKETS, ticket_id)
    if ticket is None:
        raise TicketNotFound(f"There is no ticket {ticket_id}.")
    return ticket


def record(ticket: Ticket, uow: UnitOfWork) -> None:
    """Save the ticket and note its state in the history, in one transaction."""
    uow.save(TICKETS, ticket)
    row = {"ticket_id": ticket.id, "version": ticket.version, "state": ticket.state.value, "at": datetime.now(UTC)}
    uow.append(ticket_history, row)


def _publish(event: events.TicketEvent, ticket: Ticket, uow: UnitOfWork) -> None:
    uow.publish(event, subject=ticket.id, version=ticket.version)


def _ids(ticket: Ticket) -> dict[str, Any]:
    if ticket.restaurant_id is None:
        raise WrongState(f"The ticket {ticket.id} was never made.")
    return {"ticket_id": ticket.id, "restaurant_id": ticket.restaurant_id}


def line_items(items: Iterable[TicketLineItem]) -> tuple[LineItem, ...]:
    return tuple(LineItem(i.menu_item_id, i.name, i.quantity) for i in items)


def contract_lines(ticket: Ticket) -> tuple[TicketLineItem, ...]:
    return tuple(TicketLineItem(i.menu_item_id, i.name, i.quantity) for i in ticket.line_items)
