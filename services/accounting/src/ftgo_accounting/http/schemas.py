"""What the REST API of accounting takes and gives."""

from datetime import datetime

from ftgo_service_kit.schemas import Amount, ApiModel, MoneyOut, UuidStr

from ftgo_accounting.adapters.queries import Statement
from ftgo_accounting.domain.account import AccountState, EntryType


class CreditLimitRequest(ApiModel):
    credit_limit: Amount


class EntryView(ApiModel):
    """``change`` is what the entry adds to ``authorized``."""

    version: int
    type: EntryType
    amount: MoneyOut
    change: MoneyOut
    order_id: UuidStr | None
    at: datetime


class AccountView(ApiModel):
    """``available`` = creditLimit - authorized, but never below zero. The newest 100 entries, newest first."""

    account_id: UuidStr
    consumer_id: UuidStr
    state: AccountState
    credit_limit: MoneyOut
    authorized: MoneyOut
    available: MoneyOut
    version: int
    entries: list[EntryView]


def account_view(statement: Statement) -> AccountView:
    account = statement.account
    return AccountView(
        account_id=account.consumer_id,
        consumer_id=account.consumer_id,
        state=account.state,
        credit_limit=account.credit_limit,
        authorized=account.authorized,
        available=account.available,
        version=account.version,
        entries=[
            EntryView(
                version=entry.version,
                type=entry.type,
                amount=entry.amount,
                change=entry.change,
                order_id=entry.order_id,
                at=at,
            )
            for entry, at in statement.entries
        ],
    )
