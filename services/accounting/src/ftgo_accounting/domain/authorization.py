"""The authorization of one order: at most one, ever, and each decision on it is taken once.

A command may come again under another message id, even after its saga is over: out of a dead letter, say. It is
answered as it was the first time; to decide anew could set money aside for an order that was rejected meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ftgo_contracts.money import Money
from ftgo_messaging import DomainError

from ftgo_accounting.domain.account import AccountIsDisabled, InsufficientCredit, PaymentRefused

_REMEMBERED = 20


class AuthorizationIsReversed(PaymentRefused):
    """The order's authorization was reversed, perhaps before it was asked for; it does not come back."""

    slug = "authorization-reversed"


class NotAuthorized(DomainError):
    """There is no authorization that could be revised."""

    slug = "not-authorized"


class AuthorizationState(StrEnum):
    AUTHORIZED = "AUTHORIZED"
    REVERSED = "REVERSED"
    DECLINED = "DECLINED"


@dataclass(frozen=True, slots=True)
class Authorization:
    """Money set aside on the consumer's account for an order, or the note that none ever will be.

    ``declined`` is the slug of the refusal, in DECLINED. ``revisions`` are the newest 20 that were decided: the id of
    each, and the slug of its refusal or nothing."""

    order_id: str
    id: str
    consumer_id: str
    amount: Money
    state: AuthorizationState
    declined: str = ""
    revisions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def tombstone(cls, order_id: str, id: str, consumer_id: str) -> Authorization:
        """What a reversal leaves that came before the authorization: a late authorization finds it, and fails."""
        return cls(order_id, id, consumer_id, Money.zero(), AuthorizationState.REVERSED)

    @classmethod
    def decline(cls, order_id: str, id: str, consumer_id: str, refusal: PaymentRefused) -> Authorization:
        return cls(order_id, id, consumer_id, Money.zero(), AuthorizationState.DECLINED, refusal.slug)

    @property
    def stands(self) -> bool:
        return self.state is AuthorizationState.AUTHORIZED

    @property
    def reversed(self) -> bool:
        return self.state is AuthorizationState.REVERSED

    def check(self) -> None:
        """Raises PaymentRefused, as the first time, unless the money is set aside."""
        if self.state is AuthorizationState.DECLINED:
            raise _refusal(self.declined)
        if self.reversed:
            raise AuthorizationIsReversed(f"The authorization of order {self.order_id} was reversed.")

    def was_revised(self, revision: str) -> bool:
        """Whether this revision was carried out before. Raises PaymentRefused if it was refused before."""
        for decided, refusal in self.revisions:
            if decided == revision:
                if refusal:
                    raise _refusal(refusal)
                return True
        return False

    def revise(self, revision: str, amount: Money) -> Authorization:
        return replace(self._decide(revision, ""), amount=amount)

    def refuse_revision(self, revision: str, refusal: PaymentRefused) -> Authorization:
        return self._decide(revision, refusal.slug)

    def _decide(self, revision: str, refusal: str) -> Authorization:
        return replace(self, revisions=(*self.revisions, (revision, refusal))[-_REMEMBERED:])

    def reverse(self) -> Authorization:
        return replace(self, state=AuthorizationState.REVERSED)


def _refusal(slug: str) -> PaymentRefused:
    again = InsufficientCredit if slug == InsufficientCredit.slug else AccountIsDisabled
    return again("It was refused before, and that stays so.")
