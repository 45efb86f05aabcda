"""Authorize, revise and reverse the payment of an order.

All three lock the consumer's account first, so two authorizations at once are decided one after the other and never
exceed the limit together. All three may be repeated under a new message id.
"""

from ftgo_contracts.accounting.commands import AuthorizePayment, ReverseAuthorization, ReviseAuthorization
from ftgo_messaging.aggregates import Refs
from ftgo_messaging.ids import new_id
from ftgo_messaging.unit_of_work import UnitOfWork

from ftgo_accounting.adapters.tables import ACCOUNTS, AUTHORIZATIONS
from ftgo_accounting.application.ledger import keep
from ftgo_accounting.domain.account import Account
from ftgo_accounting.domain.authorization import (
    Authorization,
    AuthorizationIsReversed,
    AuthorizationState,
    NotAuthorized,
)


def loads(command: AuthorizePayment | ReverseAuthorization | ReviseAuthorization) -> Refs:
    """What the use cases below read."""
    return [(ACCOUNTS, command.consumer_id), (AUTHORIZATIONS, command.order_id)]


async def authorize_payment(command: AuthorizePayment, uow: UnitOfWork) -> Authorization:
    """Set the amount aside. An order that is authorized already gets the same authorization again.

    Opens the account when there is none: the sender has had the consumer verified by its owner, so the news of the
    registration is merely late. Raises PaymentRefused, and has then written nothing."""
    known = await uow.find(ACCOUNTS, command.consumer_id)
    authorization = await uow.find(AUTHORIZATIONS, command.order_id)
    if authorization is not None:
        if authorization.reversed:
            raise AuthorizationIsReversed(f"The authorization of order {command.order_id} was reversed.")
        return authorization
    account = known or Account.unopened(command.consumer_id)
    opening = [] if known else [account.open()]
    entry = account.apply(*opening).authorize(command.order_id, command.amount)
    keep(account, [*opening, entry], uow)
    authorization = Authorization(
        command.order_id, new_id(), command.consumer_id, command.amount, AuthorizationState.AUTHORIZED
    )
    uow.save(AUTHORIZATIONS, authorization)
    return authorization


async def revise_authorization(command: ReviseAuthorization, uow: UnitOfWork) -> None:
    """Set another amount aside instead. Raises PaymentRefused when it is more and the account does not give it, and
    NotAuthorized when there is nothing to revise."""
    account = await uow.find(ACCOUNTS, command.consumer_id)
    authorization = await uow.find(AUTHORIZATIONS, command.order_id)
    if account is None or authorization is None or authorization.reversed:
        raise NotAuthorized(f"The payment of order {command.order_id} is not authorized.")
    if authorization.amount == command.amount:
        return
    entry = account.revise(command.order_id, authorization.amount, command.amount)
    keep(account, [entry], uow)
    uow.save(AUTHORIZATIONS, authorization.revise(command.amount))


async def reverse_authorization(command: ReverseAuthorization, uow: UnitOfWork) -> None:
    """Give the amount back. Never refused. For an order that was never authorized it leaves a tombstone, so that an
    authorization that comes later (the two commands may have overtaken each other) does not stand for ever."""
    account = await uow.find(ACCOUNTS, command.consumer_id)
    authorization = await uow.find(AUTHORIZATIONS, command.order_id)
    if account is None or authorization is None:
        uow.save(AUTHORIZATIONS, Authorization.tombstone(command.order_id, new_id(), command.consumer_id))
    elif not authorization.reversed:
        keep(account, [account.reverse(command.order_id, authorization.amount)], uow)
        uow.save(AUTHORIZATIONS, authorization.reverse())
