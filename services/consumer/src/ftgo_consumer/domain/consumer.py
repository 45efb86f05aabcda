"""The Consumer aggregate: who may order, and up to which total."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ftgo_contracts.money import Money
from ftgo_messaging import DomainError

DEFAULT_ORDER_LIMIT = Money.of("1000.00")


class ConsumerNotFound(DomainError):
    """There is no consumer with this id."""

    slug = "consumer-not-found"
    status = 404


class VerificationFailed(DomainError):
    """The consumer may not have this order. ``reason`` is a word of the contract."""

    slug = "verification-failed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConsumerStatus(StrEnum):
    ACTIVE = "ACTIVE"
    BLOCKED = "BLOCKED"


@dataclass(frozen=True, slots=True)
class Consumer:
    """``version`` grows by one with every change; a repeated block or rename to the same name is no change."""

    id: str
    first_name: str
    last_name: str
    email: str | None
    status: ConsumerStatus
    order_limit: Money
    version: int

    @classmethod
    def register(
        cls, id: str, first_name: str, last_name: str, email: str | None, order_limit: Money | None
    ) -> Consumer:
        limit = DEFAULT_ORDER_LIMIT if order_limit is None else order_limit
        return cls(id, first_name, last_name, email, ConsumerStatus.ACTIVE, limit, 1)

    def rename(self, first_name: str, last_name: str) -> Consumer:
        if (first_name, last_name) == (self.first_name, self.last_name):
            return self
        return replace(self, first_name=first_name, last_name=last_name, version=self.version + 1)

    def block(self) -> Consumer:
        return self._become(ConsumerStatus.BLOCKED)

    def unblock(self) -> Consumer:
        return self._become(ConsumerStatus.ACTIVE)

    def _become(self, status: ConsumerStatus) -> Consumer:
        return self if self.status is status else replace(self, status=status, version=self.version + 1)

    def verify(self, order_total: Money) -> None:
        """Raises VerificationFailed: BLOCKED, or LIMIT_EXCEEDED when the total is over the order limit."""
        if self.status is ConsumerStatus.BLOCKED:
            raise VerificationFailed("BLOCKED")
        if order_total > self.order_limit:
            raise VerificationFailed("LIMIT_EXCEEDED")
