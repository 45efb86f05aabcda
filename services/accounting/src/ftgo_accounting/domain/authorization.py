"""The authorization of one order: at most one, ever."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ftgo_contracts.money import Money
from ftgo_messaging.errors import DomainError

from ftgo_accounting.domain.account import PaymentRefused


class AuthorizationIsReversed(PaymentRefused):
    """The order's authorization was reversed, perhaps before it was asked for; it does not come back."""

    slug = "authorization-reversed"


class NotAuthorized(DomainError):
    """There is no authorization that could be revised."""

    slug = "not-authorized"


class AuthorizationState(StrEnum):
    AUTHORIZED = "AUTHORIZED"
    REVERSED = "REVERSED"


@dataclass(frozen=True, slots=True)
class Authorization:
    """Money set aside on the consumer's account for an order."""

    order_id: str
    id: str
    consumer_id: str
    amount: Money
    state: AuthorizationState

    @classmethod
    def tombstone(cls, order_id: str, id: str, consumer_id: str) -> Authorization:
        """What a reversal leaves that came before the authorization: a late authorization finds it, and fails."""
        return cls(order_id, id, consumer_id, Money.zero(), AuthorizationState.REVERSED)

    @property
    def reversed(self) -> bool:
        return self.state is AuthorizationState.REVERSED

    def revise(self, amount: Money) -> Authorization:
        return replace(self, amount=amount)

    def reverse(self) -> Authorization:
        return replace(self, state=AuthorizationState.REVERSED)
