"""The commands of accounting.commands."""

from ftgo_contracts.accounting.commands import AuthorizePayment, ReverseAuthorization, ReviseAuthorization
from ftgo_contracts.accounting.replies import PaymentAuthorized, PaymentDeclined
from ftgo_messaging import Message, MessageHandlers, Reply, Success, UnitOfWork
from ftgo_messaging.messages.message import SAGA_ID

from ftgo_accounting.application import authorizations
from ftgo_accounting.application.authorizations import needs
from ftgo_accounting.domain.account import InsufficientCredit, PaymentRefused

COMMANDS = MessageHandlers("accounting")


@COMMANDS.handle(AuthorizePayment, needs=needs)
async def authorize_payment(command: AuthorizePayment, uow: UnitOfWork) -> Reply:
    try:
        authorization = await authorizations.authorize_payment(command, uow)
    except PaymentRefused as refusal:
        return _declined(refusal)
    return PaymentAuthorized(authorization_id=authorization.id)


@COMMANDS.handle(ReviseAuthorization, needs=needs, with_message=True)
async def revise_authorization(command: ReviseAuthorization, uow: UnitOfWork, message: Message) -> Reply:
    try:
        # A revision is its saga's: each saga on an order revises at most once.
        await authorizations.revise_authorization(command, message.headers.get(SAGA_ID, message.id), uow)
    except PaymentRefused as refusal:
        return _declined(refusal)
    return Success()


@COMMANDS.handle(ReverseAuthorization, needs=needs)
async def reverse_authorization(command: ReverseAuthorization, uow: UnitOfWork) -> Reply:
    await authorizations.reverse_authorization(command, uow)
    return Success()


def _declined(refusal: PaymentRefused) -> PaymentDeclined:
    """The contract has three reasons. A reversed authorization is told as DISABLED: not for want of credit, and asking
    again does not help."""
    return PaymentDeclined(reason="INSUFFICIENT_CREDIT" if isinstance(refusal, InsufficientCredit) else "DISABLED")
