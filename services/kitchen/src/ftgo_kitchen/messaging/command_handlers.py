"""The commands of kitchen.commands."""

from ftgo_contracts.kitchen import commands as c
from ftgo_contracts.kitchen.replies import TicketCreated, TicketRefused
from ftgo_messaging import Message, MessageHandlers, Refs, Reply, UnitOfWork
from ftgo_messaging.messages.message import SAGA_ID

from ftgo_kitchen.adapters.tables import RESTAURANTS_TO_READ, TICKETS
from ftgo_kitchen.application import tickets
from ftgo_kitchen.domain.ticket import WrongState

COMMANDS = MessageHandlers("kitchen")


def _of_creation(command: c.CreateTicket) -> Refs:
    yield TICKETS, command.order_id
    yield RESTAURANTS_TO_READ, command.restaurant_id


def _by_ticket(command: c.ConfirmCreateTicket | c.CancelCreateTicket) -> Refs:
    yield TICKETS, command.ticket_id


def _by_order(command: c.BeginCancelTicket) -> Refs:
    yield TICKETS, command.order_id


@COMMANDS.handle(c.CreateTicket, needs=_of_creation)
async def create_ticket(command: c.CreateTicket, uow: UnitOfWork) -> Reply:
    try:
        ticket = await tickets.create_ticket(command, uow)
    except WrongState as refusal:
        return TicketRefused(reason=refusal.slug.upper().replace("-", "_"))
    return TicketCreated(ticket_id=ticket.id)


@COMMANDS.handle(c.ConfirmCreateTicket, needs=_by_ticket)
async def confirm_create_ticket(command: c.ConfirmCreateTicket, uow: UnitOfWork) -> None:
    await tickets.confirm_create(command.ticket_id, uow)


@COMMANDS.handle(c.CancelCreateTicket, needs=_by_ticket)
async def cancel_create_ticket(command: c.CancelCreateTicket, uow: UnitOfWork) -> None:
    await tickets.cancel_create(command.ticket_id, uow)


@COMMANDS.handle(c.BeginCancelTicket, needs=_by_order, with_message=True)
async def begin_cancel_ticket(command: c.BeginCancelTicket, uow: UnitOfWork, message: Message) -> None:
    await tickets.move(command.order_id, lambda t: t.begin_cancel(_change(message)), uow)


@COMMANDS.handle(c.UndoBeginCancelTicket, needs=_by_order, with_message=True)
async def undo_begin_cancel_ticket(command: c.UndoBeginCancelTicket, uow: UnitOfWork, message: Message) -> None:
    await tickets.undo(command.order_id, lambda t: t.undo_cancel(_change(message)), uow)


@COMMANDS.handle(c.ConfirmCancelTicket, needs=_by_order, with_message=True)
async def confirm_cancel_ticket(command: c.ConfirmCancelTicket, uow: UnitOfWork, message: Message) -> None:
    await tickets.confirm_cancel(command.order_id, _change(message), uow)


@COMMANDS.handle(c.BeginReviseTicket, needs=_by_order, with_message=True)
async def begin_revise_ticket(command: c.BeginReviseTicket, uow: UnitOfWork, message: Message) -> None:
    await tickets.move(command.order_id, lambda t: t.begin_revise(_change(message)), uow)


@COMMANDS.handle(c.UndoBeginReviseTicket, needs=_by_order, with_message=True)
async def undo_begin_revise_ticket(command: c.UndoBeginReviseTicket, uow: UnitOfWork, message: Message) -> None:
    await tickets.undo(command.order_id, lambda t: t.undo_revise(_change(message)), uow)


@COMMANDS.handle(c.ConfirmReviseTicket, needs=_by_order, with_message=True)
async def confirm_revise_ticket(command: c.ConfirmReviseTicket, uow: UnitOfWork, message: Message) -> None:
    revised = tickets.line_items(command.revised_line_items)
    await tickets.confirm_revise(command.order_id, _change(message), revised, uow)


def _change(message: Message) -> str:
    """Which cancellation or revision this is about: that of the saga which sends, begins and ends it."""
    return message.headers.get(SAGA_ID, "")
