"""Events of the Accounting service, keyed by the account's id, which is its consumer's id."""

from ftgo_messaging import DomainEvent

from ftgo_contracts.channels import ACCOUNT_EVENTS
from ftgo_contracts.money import Money
from ftgo_contracts.types import Id


class AccountEvent(DomainEvent, frozen=True, kw_only=True, rename="camel"):
    account_id: Id
    consumer_id: Id


@ACCOUNT_EVENTS.carries("ftgo.accounting.AccountOpened")
class AccountOpened(AccountEvent, frozen=True, kw_only=True, rename="camel"):
    credit_limit: Money


@ACCOUNT_EVENTS.carries("ftgo.accounting.PaymentAuthorized")
class PaymentAuthorized(AccountEvent, frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    amount: Money


@ACCOUNT_EVENTS.carries("ftgo.accounting.AuthorizationReversed")
class AuthorizationReversed(AccountEvent, frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    amount: Money


@ACCOUNT_EVENTS.carries("ftgo.accounting.AuthorizationRevised")
class AuthorizationRevised(AccountEvent, frozen=True, kw_only=True, rename="camel"):
    order_id: Id
    amount: Money


@ACCOUNT_EVENTS.carries("ftgo.accounting.AccountDisabled")
class AccountDisabled(AccountEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@ACCOUNT_EVENTS.carries("ftgo.accounting.AccountEnabled")
class AccountEnabled(AccountEvent, frozen=True, kw_only=True, rename="camel"):
    pass
