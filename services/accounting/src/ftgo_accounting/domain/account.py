"""The Account aggregate, event-sourced: its entries are the truth, its fields are what they add up to.

A decision (``authorize``, ``revise`` ...) looks at the account and returns an entry, or raises; ``apply`` is the only
way in which an account changes. ``fold`` replays entries from the first one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ftgo_contracts.money import Money
from ftgo_messaging import DomainError

NOTHING = Money.zero()
DEFAULT_CREDIT_LIMIT = Money.of("1000.00")


class AccountNotFound(DomainError):
    """The consumer has no account."""

    slug = "account-not-found"
    status = 404


class PaymentRefused(DomainError):
    """The account does not give this credit. The slug says why."""


class AccountIsDisabled(PaymentRefused):
    slug = "disabled"


class InsufficientCredit(PaymentRefused):
    slug = "insufficient-credit"


class AccountState(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class EntryType(StrEnum):
    ACCOUNT_OPENED = "ACCOUNT_OPENED"
    CREDIT_LIMIT_CHANGED = "CREDIT_LIMIT_CHANGED"
    PAYMENT_AUTHORIZED = "PAYMENT_AUTHORIZED"
    AUTHORIZATION_REVISED = "AUTHORIZATION_REVISED"
    AUTHORIZATION_REVERSED = "AUTHORIZATION_REVERSED"
    ACCOUNT_DISABLED = "ACCOUNT_DISABLED"
    ACCOUNT_ENABLED = "ACCOUNT_ENABLED"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that has happened to an account; never changed afterwards. Entries of an account are numbered 1, 2, 3
    without a gap.

    ``amount`` is what the entry is about: the new credit limit, the amount authorized, reversed, or revised to; zero
    where there is none. ``change`` is what it adds to the sum of all authorizations; negative when it takes away."""

    consumer_id: str
    version: int
    type: EntryType
    amount: Money = NOTHING
    change: Money = NOTHING
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """``authorized`` is the sum of the authorizations that stand. It never grows beyond the credit limit; it may be
    beyond it after the limit was lowered, and then only shrinks."""

    consumer_id: str
    credit_limit: Money
    authorized: Money
    state: AccountState
    version: int

    @property
    def available(self) -> Money:
        """What may still be authorized, never below zero."""
        return max(self.credit_limit - self.authorized, NOTHING)

    @classmethod
    def unopened(cls, consumer_id: str) -> Account:
        """An account before its first entry, which can only be the one that opens it."""
        return cls(consumer_id, Money.zero(), Money.zero(), AccountState.ENABLED, 0)

    # -- decisions -----------------------------------------------------------------------------------------------

    def open(self, credit_limit: Money = DEFAULT_CREDIT_LIMIT) -> Entry:
        """The first entry of every account."""
        return self._entry(EntryType.ACCOUNT_OPENED, credit_limit)

    def authorize(self, order_id: str, amount: Money) -> Entry:
        """Raises AccountIsDisabled or InsufficientCredit."""
        self._check_credit(amount, more=amount)
        return self._entry(EntryType.PAYMENT_AUTHORIZED, amount, change=amount, order_id=order_id)

    def revise(self, order_id: str, before: Money, amount: Money) -> Entry:
        """Another amount for an authorization. Less is always possible; more raises as ``authorize`` does."""
        self._check_credit(amount, more=amount - before)
        return self._entry(EntryType.AUTHORIZATION_REVISED, amount, change=amount - before, order_id=order_id)

    def reverse(self, order_id: str, amount: Money) -> Entry:
        """Give an authorization of ``amount`` back. Cannot be refused, not even when the account is disabled."""
        change = NOTHING - amount
        return self._entry(EntryType.AUTHORIZATION_REVERSED, amount, change=change, order_id=order_id)

    def change_credit_limit(self, credit_limit: Money) -> Entry | None:
        """None if there is nothing to change."""
        if credit_limit == self.credit_limit:
            return None
        return self._entry(EntryType.CREDIT_LIMIT_CHANGED, credit_limit)

    def disable(self) -> Entry | None:
        """None if it is disabled already."""
        return None if self.state is AccountState.DISABLED else self._entry(EntryType.ACCOUNT_DISABLED)

    def enable(self) -> Entry | None:
        """None if it is enabled already."""
        return None if self.state is AccountState.ENABLED else self._entry(EntryType.ACCOUNT_ENABLED)

    def _check_credit(self, amount: Money, *, more: Money) -> None:
        if amount < NOTHING:
            # Not a refusal: no honest sender asks for it, and granting it would create credit from nothing.
            raise ValueError(f"an authorization of {amount}")
        if more <= NOTHING:
            return
        if self.state is AccountState.DISABLED:
            raise AccountIsDisabled(f"The account of {self.consumer_id} is disabled.")
        if self.authorized + more > self.credit_limit:
            raise InsufficientCredit(f"{more} are asked for, {self.available} are available.")

    def _entry(
        self,
        type: EntryType,
        amount: Money = NOTHING,
        change: Money = NOTHING,
        order_id: str | None = None,
    ) -> Entry:
        return Entry(self.consumer_id, self.version + 1, type, amount, change, order_id)

    # -- change --------------------------------------------------------------------------------------------------

    def apply(self, *entries: Entry) -> Account:
        """The account after these entries. Raises ValueError for an entry of another account or out of turn."""
        account = self
        for entry in entries:
            account = account._after(entry)
        return account

    def _after(self, entry: Entry) -> Account:
        opens = entry.type is EntryType.ACCOUNT_OPENED
        follows = (entry.consumer_id, entry.version) == (self.consumer_id, self.version + 1)
        if not follows or opens is not (self.version == 0):
            raise ValueError(f"{entry} does not follow {self}")
        after = replace(self, authorized=self.authorized + entry.change, version=entry.version)
        match entry.type:
            case EntryType.ACCOUNT_DISABLED:
                return replace(after, state=AccountState.DISABLED)
            case EntryType.ACCOUNT_ENABLED:
                return replace(after, state=AccountState.ENABLED)
            case EntryType.ACCOUNT_OPENED | EntryType.CREDIT_LIMIT_CHANGED:
                return replace(after, credit_limit=entry.amount)
            case _:
                return after


def fold(consumer_id: str, entries: Iterable[Entry]) -> Account:
    """The account that these entries make, oldest first."""
    return Account.unopened(consumer_id).apply(*entries)
