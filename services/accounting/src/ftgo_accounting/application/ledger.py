"""Keeps entries: appended to the ledger, folded into the balance and told to the world, in one transaction."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ftgo_contracts.accounting import events
from ftgo_messaging import UnitOfWork

from ftgo_accounting.adapters.tables import ACCOUNTS, account_entries, entry_to_row
from ftgo_accounting.domain.account import Account, Entry, EntryType

_ABOUT_ORDER = {
    EntryType.PAYMENT_AUTHORIZED: events.PaymentAuthorized,
    EntryType.AUTHORIZATION_REVISED: events.AuthorizationRevised,
    EntryType.AUTHORIZATION_REVERSED: events.AuthorizationReversed,
}


def record(account: Account, entries: Sequence[Entry], uow: UnitOfWork) -> Account:
    """The account after the entries, which are kept with it."""
    now = datetime.now(UTC)
    for entry in entries:
        uow.append(account_entries, entry_to_row(entry, now))
        event = _event(entry)
        if event is not None:
            uow.publish(event, subject=entry.consumer_id, version=entry.version)
    account = account.apply(*entries)
    uow.save(ACCOUNTS, account)
    return account


def _event(entry: Entry) -> events.AccountEvent | None:
    """What is public of an entry. A credit limit is nobody else's business: its change is not published, so the
    versions of an account's events may leave a number out."""
    account_id = consumer_id = entry.consumer_id
    if entry.order_id is not None:
        about_order = _ABOUT_ORDER[entry.type]
        return about_order(account_id=account_id, consumer_id=consumer_id, order_id=entry.order_id, amount=entry.amount)
    match entry.type:
        case EntryType.ACCOUNT_OPENED:
            return events.AccountOpened(account_id=account_id, consumer_id=consumer_id, credit_limit=entry.amount)
        case EntryType.ACCOUNT_DISABLED:
            return events.AccountDisabled(account_id=account_id, consumer_id=consumer_id)
        case EntryType.ACCOUNT_ENABLED:
            return events.AccountEnabled(account_id=account_id, consumer_id=consumer_id)
        case _:
            return None
