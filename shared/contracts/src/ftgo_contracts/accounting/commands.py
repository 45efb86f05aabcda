"""Commands to the Accounting service."""

from ftgo_messaging import Command, Success

from ftgo_contracts.accounting.replies import PaymentAuthorized
from ftgo_contracts.channels import (
    ACCOUNTING_COMMANDS,
    CANCEL_ORDER_REPLIES,
    CREATE_ORDER_REPLIES,
    REVISE_ORDER_REPLIES,
)
from ftgo_contracts.money import Money
from ftgo_contracts.types import Id


@ACCOUNTING_COMMANDS.carries("ftgo.accounting.AuthorizePayment", replies_to=(CREATE_ORDER_REPLIES,))
class AuthorizePayment(Command[PaymentAuthorized], frozen=True, kw_only=True, rename="camel"):
    consumer_id: Id
    order_id: Id
    amount: Money


@ACCOUNTING_COMMANDS.carries(
    "ftgo.accounting.ReverseAuthorization", replies_to=(CANCEL_ORDER_REPLIES, CREATE_ORDER_REPLIES)
)
class ReverseAuthorization(Command[Success], frozen=True, kw_only=True, rename="camel"):
    """Cannot be refused. For a payment that was never authorized it succeeds, and refuses the late authorization."""

    consumer_id: Id
    order_id: Id


@ACCOUNTING_COMMANDS.carries("ftgo.accounting.ReviseAuthorization", replies_to=(REVISE_ORDER_REPLIES,))
class ReviseAuthorization(Command[Success], frozen=True, kw_only=True, rename="camel"):
    consumer_id: Id
    order_id: Id
    amount: Money
