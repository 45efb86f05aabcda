"""Replies of the Kitchen service."""

from ftgo_messaging import Failure, Reply, reply_type

from ftgo_contracts.types import Id


@reply_type("ftgo.kitchen.reply.TicketCreated")
class TicketCreated(Reply, frozen=True, kw_only=True, rename="camel"):
    ticket_id: Id


@reply_type("ftgo.kitchen.reply.TicketRefused")
class TicketRefused(Failure, frozen=True, kw_only=True, rename="camel"):
    """reason: UNKNOWN_RESTAURANT, CANCELLED, or WRONG_STATE."""
