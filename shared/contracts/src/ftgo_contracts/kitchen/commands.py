"""Commands to the Kitchen service. A ticket's id is its order's id."""

import msgspec
from ftgo_messaging import Command, Success

from ftgo_contracts.channels import (
    CANCEL_ORDER_REPLIES,
    CREATE_ORDER_REPLIES,
    KITCHEN_COMMANDS,
    REVISE_ORDER_REPLIES,
)
from ftgo_contracts.kitchen.replies import TicketCreated
from ftgo_contracts.types import Id, Quantity


class TicketLineItem(msgspec.Struct, frozen=True, rename="camel"):
    menu_item_id: str
    name: str
    quantity: Quantity


@KITCHEN_COMMANDS.carries("ftgo.kitchen.CreateTicket", replies_to=(CREATE_ORDER_REPLIES,))
class CreateTicket(Command[TicketCreated], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id
    line_items: tuple[TicketLineItem, ...]


@KITCHEN_COMMANDS.carries("ftgo.kitchen.ConfirmCreateTicket", replies_to=(CREATE_ORDER_REPLIES,))
class ConfirmCreateTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    ticket_id: Id


@KITCHEN_COMMANDS.carries("ftgo.kitchen.CancelCreateTicket", replies_to=(CREATE_ORDER_REPLIES,))
class CancelCreateTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    """Compensation of CreateTicket: cannot be refused, and succeeds for a ticket that was never made."""

    ticket_id: Id


@KITCHEN_COMMANDS.carries("ftgo.kitchen.BeginCancelTicket", replies_to=(CANCEL_ORDER_REPLIES,))
class BeginCancelTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id


@KITCHEN_COMMANDS.carries("ftgo.kitchen.ConfirmCancelTicket", replies_to=(CANCEL_ORDER_REPLIES,))
class ConfirmCancelTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id


@KITCHEN_COMMANDS.carries("ftgo.kitchen.UndoBeginCancelTicket", replies_to=(CANCEL_ORDER_REPLIES,))
class UndoBeginCancelTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id


@KITCHEN_COMMANDS.carries("ftgo.kitchen.BeginReviseTicket", replies_to=(REVISE_ORDER_REPLIES,))
class BeginReviseTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id
    revised_line_items: tuple[TicketLineItem, ...]


@KITCHEN_COMMANDS.carries("ftgo.kitchen.ConfirmReviseTicket", replies_to=(REVISE_ORDER_REPLIES,))
class ConfirmReviseTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id
    revised_line_items: tuple[TicketLineItem, ...]


@KITCHEN_COMMANDS.carries("ftgo.kitchen.UndoBeginReviseTicket", replies_to=(REVISE_ORDER_REPLIES,))
class UndoBeginReviseTicket(Command[Success], frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    restaurant_id: Id
