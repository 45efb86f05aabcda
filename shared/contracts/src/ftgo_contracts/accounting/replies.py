"""Replies of the Accounting service."""

from ftgo_messaging import Failure, Reply, reply_type

from ftgo_contracts.types import Id


@reply_type("ftgo.accounting.reply.PaymentAuthorized")
class PaymentAuthorized(Reply, frozen=True, kw_only=True, rename="camel"):
    authorization_id: Id


@reply_type("ftgo.accounting.reply.PaymentDeclined")
class PaymentDeclined(Failure, frozen=True, kw_only=True, rename="camel"):
    """reason: NO_ACCOUNT, DISABLED or INSUFFICIENT_CREDIT."""
