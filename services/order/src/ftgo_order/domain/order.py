"""The Order aggregate and its state machine.

    APPROVAL_PENDING -> APPROVED or REJECTED
    APPROVED -> CANCEL_PENDING -> CANCELLED, or back to APPROVED
    APPROVED -> REVISION_PENDING -> APPROVED

A pending state is a semantic lock: whoever wants to begin something else meanwhile is refused, and never waits.

The steps that a saga takes (all but ``begin_*``) may be repeated: when there is nothing left to do they return the
very same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from ftgo_contracts.money import Money
from ftgo_messaging import DomainError


class OrderNotFound(DomainError):
    """There is no order with this id."""

    slug = "order-not-found"
    status = 404


class WrongState(DomainError):
    """The order's state does not allow this, at least not now."""

    slug = "wrong-state"
    status = 409


class OrderState(StrEnum):
    APPROVAL_PENDING = "APPROVAL_PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    CANCEL_PENDING = "CANCEL_PENDING"
    CANCELLED = "CANCELLED"
    REVISION_PENDING = "REVISION_PENDING"

    @property
    def settled(self) -> bool:
        """Whether no saga is at work on the order. A settled order changes only when somebody asks for it."""
        return self in {OrderState.APPROVED, OrderState.REJECTED, OrderState.CANCELLED}


@dataclass(frozen=True, slots=True)
class OrderLineItem:
    """A line with the name and the price that held when it was ordered; later menus do not change it."""

    menu_item_id: str
    name: str
    price: Money
    quantity: int

    @property
    def total(self) -> Money:
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class Address:
    street1: str
    street2: str | None
    city: str
    state: str
    zip: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """When and where; the time is in UTC."""

    time: datetime
    address: Address


@dataclass(frozen=True, slots=True)
class Revision:
    """The lines that are to replace the order's, while the kitchen and accounting are being asked."""

    line_items: tuple[OrderLineItem, ...]
    order_total: Money


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an order or a change of it was refused, in a word of the contract, and by which service."""

    reason: str
    service: str


def total_of(line_items: Iterable[OrderLineItem]) -> Money:
    return sum((item.total for item in line_items), Money.zero())


@dataclass(frozen=True, slots=True)
class Order:
    """``restaurant_name`` is that of the time of the order; None in one that was made before names were kept.
    ``fingerprint`` tells whether a repeated request for this id asked for the same. ``revision`` is there exactly in
    REVISION_PENDING, ``rejection`` exactly in REJECTED. ``change_refusal`` is there in APPROVED when the last change
    that was asked for was refused, until the next begins. ``version`` grows by one with every change."""

    id: str
    consumer_id: str
    restaurant_id: str
    restaurant_name: str | None
    state: OrderState
    line_items: tuple[OrderLineItem, ...]
    order_total: Money
    delivery: Delivery
    fingerprint: str
    revision: Revision | None = None
    rejection: Refusal | None = None
    change_refusal: Refusal | None = None
    version: int = 1

    @classmethod
    def create(
        cls,
        *,
        id: str,
        consumer_id: str,
        restaurant_id: str,
        restaurant_name: str,
        line_items: tuple[OrderLineItem, ...],
        delivery: Delivery,
        fingerprint: str,
    ) -> Order:
        return cls(
            id=id,
            consumer_id=consumer_id,
            restaurant_id=restaurant_id,
            restaurant_name=restaurant_name,
            state=OrderState.APPROVAL_PENDING,
            line_items=line_items,
            order_total=total_of(line_items),
            delivery=delivery,
            fingerprint=fingerprint,
        )

    # -- create --------------------------------------------------------------------------------------------------

    def approve(self) -> Order:
        """The end of a creation that went well. Does nothing to an order that has been approved before."""
        if self.state is OrderState.APPROVAL_PENDING:
            return self._become(OrderState.APPROVED)
        return self._unless(OrderState.REJECTED, what="approved")

    def reject(self, reason: str, service: str) -> Order:
        """The end of a creation that was refused. The first rejection stays."""
        if self.state is OrderState.APPROVAL_PENDING:
            return replace(self._become(OrderState.REJECTED), rejection=Refusal(reason, service))
        return self._only(OrderState.REJECTED, what="rejected")

    # -- cancel --------------------------------------------------------------------------------------------------

    def begin_cancel(self) -> Order:
        self._only(OrderState.APPROVED, what="cancelled")
        return self._become(OrderState.CANCEL_PENDING)

    def undo_cancel(self, reason: str, service: str) -> Order:
        """Back to APPROVED, with the refusal. Succeeds without effect when no cancellation is under way; only a
        cancellation that has been confirmed cannot be undone."""
        if self.state is OrderState.CANCEL_PENDING:
            return replace(self._become(OrderState.APPROVED), change_refusal=Refusal(reason, service))
        return self._unless(OrderState.CANCELLED, what="kept")

    def confirm_cancel(self) -> Order:
        if self.state is OrderState.CANCEL_PENDING:
            return self._become(OrderState.CANCELLED)
        return self._only(OrderState.CANCELLED, what="cancelled for good")

    # -- revise --------------------------------------------------------------------------------------------------

    def begin_revise(self, line_items: tuple[OrderLineItem, ...]) -> Order:
        """Keeps the proposal aside: until it is confirmed, the order's own lines and total hold."""
        self._only(OrderState.APPROVED, what="revised")
        return replace(self._become(OrderState.REVISION_PENDING), revision=Revision(line_items, total_of(line_items)))

    def undo_revise(self, reason: str, service: str) -> Order:
        """Drops the proposal and keeps the refusal. Succeeds without effect when no revision is under way."""
        if self.state is OrderState.REVISION_PENDING:
            refusal = Refusal(reason, service)
            return replace(self._become(OrderState.APPROVED), revision=None, change_refusal=refusal)
        return self

    def confirm_revise(self) -> Order:
        """The proposal becomes the order. Does nothing to an order without a proposal that has been approved."""
        if self.revision is not None:
            return replace(
                self._become(OrderState.APPROVED),
                line_items=self.revision.line_items,
                order_total=self.revision.order_total,
                revision=None,
            )
        return self._unless(OrderState.APPROVAL_PENDING, OrderState.REJECTED, what="revised")

    # -- rules ---------------------------------------------------------------------------------------------------

    def _become(self, state: OrderState) -> Order:
        return replace(self, state=state, change_refusal=None, version=self.version + 1)

    def _only(self, state: OrderState, *, what: str) -> Order:
        if self.state is not state:
            raise WrongState(f"An order in state {self.state} cannot be {what}.", state=self.state.value)
        return self

    def _unless(self, *states: OrderState, what: str) -> Order:
        if self.state in states:
            raise WrongState(f"An order in state {self.state} cannot be {what}.", state=self.state.value)
        return self
