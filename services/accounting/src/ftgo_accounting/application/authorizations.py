"""Authorize, revise and reverse the payment of an order.

All three lock the consumer's account first, so two authorizations at once are decided one after the other and never
exceed the limit together. All three may be repeated under a new message id, however late.
"""

from ftgo_contracts.accounting.commands import AuthorizePayment, ReverseAuthorization, ReviseAuthorization
from ftgo_messaging import Refs, UnitOfWork, new_id

from ftgo_accounting.adapters.tables import ACCOUNTS, AUTHORIZATIONS
from ftgo_accounting.application.ledger import record
from ftgo_accounting.domain.account import Account, PaymentRefused
from ftgo_accounting.domain.authorization import (
    Authorization,
    AuthorizationState,
    NotAuthorized,
)


def needs(command: AuthorizePayment | ReverseAuthorization | ReviseAuthorization) -> Refs:
    """What the use cases below read."""
    return [(ACCOUNTS, command.consumer_id), (AUTHORIZATIONS, command.order_id)]


async def authorize_payment(command: AuthorizePayment, uow: UnitOfWork) -> Authorization:
    """Set the amount aside. An order that is authorized already gets the same authorization again.

    Opens the account when there is none: the sender has had the consumer verified by its owner, so the news of the
    registration is merely late. Raises PaymentRefused, and has then written only that; it stays refused."""
    known, authorization = await _found(command, uow)
    if authorization is not None:
        authorization.check()
        return authorization
    account = known or Account.unopened(command.consumer_id)
    opening = [] if known else [account.open()]
    try:
        entry = account.apply(*opening).authorize(command.order_id, command.amount)
    except PaymentRefused as refusal:
        uow.save(AUTHORIZATIONS, Authorization.decline(command.order_id, new_id(), command.consumer_id, refusal))
        raise
    record(account, [*opening, entry], uow)
    authorization = Authorization(
        command.order_id, new_id(), command.consumer_id, command.amount, AuthorizationState.AUTHORIZED
    )
    uow.save(AUTHORIZATIONS, authorization)
    return authorization


async def revise_authorization(command: ReviseAuthorization, revision: str, uow: UnitOfWork) -> None:
    """Set another amount aside instead. ``revision`` is decided once.

    Raises PaymentRefused when it is more and the account does not give it, and has then written only that. Raises
    NotAuthorized when there is nothing to revise."""
    account, authorization = await _found(command, uow)
    if account is None or authorization is None or not authorization.stands:
        raise NotAuthorized(f"The payment of order {command.order_id} is not authorized.")
    if authorization.was_revised(revision):
        return
    if authorization.amount != command.amount:
        try:
            entry = account.revise(command.order_id, authorization.amount, command.amount)
        except PaymentRefused as refusal:
            uow.save(AUTHORIZATIONS, authorization.refuse_revision(revision, refusal))
            raise
        record(account, [entry], uow)
    uow.save(AUTHORIZATIONS, authorization.revise(revision, command.amount))


async def reverse_authorization(command: ReverseAuthorization, uow: UnitOfWork) -> None:
    """Give the amount back. Never refused. For an order that was never authorized it leaves a tombstone, so that an
    authorization that comes later (the two commands may have overtaken each other) does not stand for ever."""
    account, authorization = await _found(command, uow)
    if authorization is None:
        uow.save(AUTHORIZATIONS, Authorization.tombstone(command.order_id, new_id(), command.consumer_id))
    elif authorization.stands and account is not None:
        record(account, [account.reverse(command.order_id, authorization.amount)], uow)
        uow.save(AUTHORIZATIONS, authorization.reverse())


async def _found(
    command: AuthorizePayment | ReverseAuthorization | ReviseAuthorization, uow: UnitOfWork
) -> tuple[Account | None, Authorization | None]:
    """The consumer's account and the order's authorization. Raises ValueError if that is another consumer's: no honest
    sender asks for it, and one consumer's account would pay, or be credited, for another's order."""
    account = await uow.find(ACCOUNTS, command.consumer_id)
    authorization = await uow.find(AUTHORIZATIONS, command.order_id)
    if authorization is not None and authorization.consumer_id != command.consumer_id:
        raise ValueError(f"the payment of order {command.order_id} is not one of consumer {command.consumer_id}")
    return account, authorization
