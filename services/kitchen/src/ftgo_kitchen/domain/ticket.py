"""The Ticket aggregate: what the kitchen has to cook for one order, and its state machine.

    CREATE_PENDING -> AWAITING_ACCEPTANCE or CANCELLED
    AWAITING_ACCEPTANCE -> ACCEPTED -> PREPARING -> READY_FOR_PICKUP -> PICKED_UP
    AWAITING_ACCEPTANCE or ACCEPTED -> CANCEL_PENDING -> CANCELLED, or back
    AWAITING_ACCEPTANCE or ACCEPTED -> REVISION_PENDING -> back

What a saga asks after its ``begin`` cannot be refused and may be repeated: it returns the very same ticket when there
is nothing left to do.

A cancellation or revision is known by an id (its saga's), so that a command that comes late or once more, from a saga
that is over, never touches what another one has begun meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from ftgo_messaging import DomainError


class TicketNotFound(DomainError):
    """There is no ticket with this id."""

    slug = "ticket-not-found"
    status = 404


class WrongState(DomainError):
    """The ticket's state does not allow this, at least not now."""

    slug = "wrong-state"
    status = 409


class ReadyByInThePast(DomainError):
    """A meal cannot be ready before now."""

    slug = "ready-by-in-the-past"
    status = 422


class TicketState(StrEnum):
    CREATE_PENDING = "CREATE_PENDING"
    AWAITING_ACCEPTANCE = "AWAITING_ACCEPTANCE"
    ACCEPTED = "ACCEPTED"
    PREPARING = "PREPARING"
    READY_FOR_PICKUP = "READY_FOR_PICKUP"
    PICKED_UP = "PICKED_UP"
    CANCEL_PENDING = "CANCEL_PENDING"
    CANCELLED = "CANCELLED"
    REVISION_PENDING = "REVISION_PENDING"


_REMEMBERED = 20
_CHANGEABLE = {TicketState.AWAITING_ACCEPTANCE, TicketState.ACCEPTED}


@dataclass(frozen=True, slots=True)
class LineItem:
    menu_item_id: str
    name: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """``id`` is the order's id. ``before`` is the state to go back to and ``change`` the id of the cancellation or
    revision under way; both are there exactly in CANCEL_PENDING and REVISION_PENDING. ``closed`` holds the newest 20
    that are over: confirmed, or taken back, perhaps before they had begun. ``version`` grows by one with every change
    of what others can see."""

    id: str
    restaurant_id: str | None
    state: TicketState
    line_items: tuple[LineItem, ...]
    before: TicketState | None = None
    ready_by: datetime | None = None
    change: str | None = None
    closed: tuple[str, ...] = ()
    version: int = 1

    @classmethod
    def create(cls, id: str, restaurant_id: str, line_items: tuple[LineItem, ...]) -> Ticket:
        return cls(id, restaurant_id, TicketState.CREATE_PENDING, line_items)

    @classmethod
    def never_made(cls, id: str) -> Ticket:
        """A tombstone: its creation was cancelled before it arrived, and is to find this when it comes."""
        return cls(id, None, TicketState.CANCELLED, ())

    # -- create ----------------------------------------------------------------------------------------------------

    def confirm_create(self) -> Ticket:
        """Hand the ticket to the kitchen. Nothing to do when that has happened, wherever the ticket is by now."""
        if self.state is TicketState.CREATE_PENDING:
            return self._become(TicketState.AWAITING_ACCEPTANCE)
        if self.state is TicketState.CANCELLED:
            # To say yes would approve an order that nobody cooks.
            raise self._wrong("confirmed")
        return self

    def cancel_create(self) -> Ticket:
        """Compensation: never refused. A ticket that the kitchen has got already is not touched: a saga that confirms
        does not cancel."""
        return self._become(TicketState.CANCELLED) if self.state is TicketState.CREATE_PENDING else self

    # -- cancel ----------------------------------------------------------------------------------------------------

    def begin_cancel(self, change: str) -> Ticket:
        return self._begin(TicketState.CANCEL_PENDING, change, "cancelled")

    def undo_cancel(self, change: str) -> Ticket:
        return self._undo(TicketState.CANCEL_PENDING, change)

    def confirm_cancel(self, change: str) -> Ticket:
        if self._is_under_way(TicketState.CANCEL_PENDING, change):
            return self._end(TicketState.CANCELLED, change)
        return self._only(TicketState.CANCELLED, "cancelled for good")

    # -- revise ----------------------------------------------------------------------------------------------------

    def begin_revise(self, change: str) -> Ticket:
        return self._begin(TicketState.REVISION_PENDING, change, "revised")

    def undo_revise(self, change: str) -> Ticket:
        return self._undo(TicketState.REVISION_PENDING, change)

    def confirm_revise(self, change: str, line_items: tuple[LineItem, ...]) -> Ticket:
        if self._is_under_way(TicketState.REVISION_PENDING, change):
            return replace(self._resume(change), line_items=line_items)
        if change in self.closed:
            return self
        raise self._wrong("revised")

    # -- cook ------------------------------------------------------------------------------------------------------

    def accept(self, ready_by: datetime, now: datetime) -> Ticket:
        self._only(TicketState.AWAITING_ACCEPTANCE, "accepted")
        if ready_by <= now:
            message = f"must be later than now, which is {now:%Y-%m-%dT%H:%M:%SZ} here"
            raise ReadyByInThePast(f"readyBy: {message}", errors=[{"field": "readyBy", "message": message}])
        return replace(self._become(TicketState.ACCEPTED), ready_by=ready_by)

    def start_preparing(self) -> Ticket:
        self._only(TicketState.ACCEPTED, "prepared")
        return self._become(TicketState.PREPARING)

    def be_ready(self) -> Ticket:
        self._only(TicketState.PREPARING, "ready")
        return self._become(TicketState.READY_FOR_PICKUP)

    def be_picked_up(self) -> Ticket:
        self._only(TicketState.READY_FOR_PICKUP, "picked up")
        return self._become(TicketState.PICKED_UP)

    # -- rules -----------------------------------------------------------------------------------------------------

    def _become(self, state: TicketState) -> Ticket:
        return replace(self, state=state, version=self.version + 1)

    def _begin(self, pending: TicketState, change: str, what: str) -> Ticket:
        if self._is_under_way(pending, change):
            return self
        if self.state not in _CHANGEABLE or change in self.closed:
            # Closed: it was taken back before it came, and nobody would ever end what it begins.
            raise self._wrong(what)
        return replace(self._become(pending), before=self.state, change=change)

    def _undo(self, pending: TicketState, change: str) -> Ticket:
        """Never refused. What has not begun is closed, so that it finds itself undone when it comes."""
        if self._is_under_way(pending, change):
            return self._resume(change)
        return self if change in self.closed else self._close(change)

    def _is_under_way(self, pending: TicketState, change: str) -> bool:
        return self.state is pending and self.change == change

    def _resume(self, change: str) -> Ticket:
        if self.before is None:
            raise self._wrong("resumed")
        return self._end(self.before, change)

    def _end(self, state: TicketState, change: str) -> Ticket:
        return replace(self._become(state)._close(change), before=None, change=None)

    def _close(self, change: str) -> Ticket:
        return replace(self, closed=(*self.closed, change)[-_REMEMBERED:])

    def _only(self, state: TicketState, what: str) -> Ticket:
        if self.state is not state:
            raise self._wrong(what)
        return self

    def _wrong(self, what: str) -> WrongState:
        return WrongState(f"A ticket in state {self.state} cannot be {what}.", state=self.state.value)
