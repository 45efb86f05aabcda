"""Open an account; change its limit; disable and enable it."""

from collections.abc import Callable

from ftgo_contracts.money import Money
from ftgo_messaging import UnitOfWork

from ftgo_accounting.adapters.tables import ACCOUNTS
from ftgo_accounting.application.ledger import record
from ftgo_accounting.domain.account import Account, AccountNotFound, Entry


async def open_account(consumer_id: str, uow: UnitOfWork) -> None:
    """Open the account with the default limit. Does nothing if a payment has opened it already."""
    if await uow.find(ACCOUNTS, consumer_id) is None:
        account = Account.unopened(consumer_id)
        record(account, [account.open()], uow)


async def change_credit_limit(consumer_id: str, credit_limit: Money, uow: UnitOfWork) -> None:
    """Authorizations stand even if the new limit is below their sum; only new ones are refused then."""
    await _change(consumer_id, lambda account: account.change_credit_limit(credit_limit), uow)


async def disable_account(consumer_id: str, uow: UnitOfWork) -> None:
    """From now on no payment is authorized. What is authorized stands."""
    await _change(consumer_id, Account.disable, uow)


async def enable_account(consumer_id: str, uow: UnitOfWork) -> None:
    await _change(consumer_id, Account.enable, uow)


async def _change(consumer_id: str, decide: Callable[[Account], Entry | None], uow: UnitOfWork) -> None:
    account = await uow.find(ACCOUNTS, consumer_id)
    if account is None:
        raise AccountNotFound(
            f"The consumer {consumer_id} has no account, or not yet: one just registered takes a moment."
        )
    entry = decide(account)
    if entry is not None:
        record(account, [entry], uow)
