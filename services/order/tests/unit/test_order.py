"""Every method of an order in every state."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from ftgo_contracts.money import Money
from ftgo_order.domain.order import Address, Delivery, Order, OrderLineItem, OrderState, Refusal, WrongState
from hypothesis import given
from hypothesis import strategies as st

SOUP = OrderLineItem("1", "Soup", Money.of("4.50"), 2)
CURRY = OrderLineItem("2", "Curry", Money.of("12.35"), 1)
DELIVERY = Delivery(datetime(2030, 1, 1, 18, tzinfo=UTC), Address("1 Main Street", None, "Oakland", "CA", "94611"))
ORDER = Order.create(
    id="order",
    consumer_id="consumer",
    restaurant_id="restaurant",
    restaurant_name="Ajanta",
    line_items=(SOUP,),
    delivery=DELIVERY,
    fingerprint="f",
)
APPROVED = ORDER.approve()
IN_STATE = {
    "APPROVAL_PENDING": ORDER,
    "APPROVED": APPROVED,
    "REJECTED": ORDER.reject("BLOCKED", "consumer"),
    "CANCEL_PENDING": APPROVED.begin_cancel(),
    "CANCELLED": APPROVED.begin_cancel().confirm_cancel(),
    "REVISION_PENDING": APPROVED.begin_revise((CURRY,)),
}
METHODS = {
    "approve": Order.approve,
    "reject": lambda order: order.reject("UNKNOWN", "consumer"),
    "begin_cancel": Order.begin_cancel,
    "undo_cancel": lambda order: order.undo_cancel("WRONG_STATE", "kitchen"),
    "confirm_cancel": Order.confirm_cancel,
    "begin_revise": lambda order: order.begin_revise((CURRY,)),
    "undo_revise": lambda order: order.undo_revise("BLOCKED", "consumer"),
    "confirm_revise": Order.confirm_revise,
}
# What becomes of an order; SAME: nothing, the very same object; REFUSED: WrongState.
SAME, REFUSED = "same", "refused"
TABLE = {
    #                  APPROVAL_PENDING    APPROVED            REJECTED  CANCEL_PENDING  CANCELLED  REVISION_PENDING
    "approve":        ("APPROVED",         SAME,               REFUSED,  SAME,           SAME,      SAME),
    "reject":         ("REJECTED",         REFUSED,            SAME,     REFUSED,        REFUSED,   REFUSED),
    "begin_cancel":   (REFUSED,            "CANCEL_PENDING",   REFUSED,  REFUSED,        REFUSED,   REFUSED),
    "undo_cancel":    (SAME,               SAME,               SAME,     "APPROVED",     REFUSED,   SAME),
    "confirm_cancel": (REFUSED,            REFUSED,            REFUSED,  "CANCELLED",    SAME,      REFUSED),
    "begin_revise":   (REFUSED,            "REVISION_PENDING", REFUSED,  REFUSED,        REFUSED,   REFUSED),
    "undo_revise":    (SAME,               SAME,               SAME,     SAME,           SAME,      "APPROVED"),
    "confirm_revise": (REFUSED,            SAME,               REFUSED,  SAME,           SAME,      "APPROVED"),
}  # fmt: skip
CASES = [(m, state, after) for m, row in TABLE.items() for state, after in zip(IN_STATE, row, strict=True)]


def test_the_table_covers_everything():
    assert set(IN_STATE) == set(OrderState)
    assert len(CASES) == len(METHODS) * len(OrderState)


@pytest.mark.parametrize(("method", "state", "after"), CASES)
def test_transition(method, state, after):
    order = IN_STATE[state]
    assert order.state == state
    if after == REFUSED:
        with pytest.raises(WrongState, match=state):
            METHODS[method](order)
    elif after == SAME:
        assert METHODS[method](order) is order
    else:
        changed = METHODS[method](order)
        assert (changed.state, changed.version) == (after, order.version + 1)


def test_the_total_is_that_of_the_lines():
    assert ORDER.order_total == Money.of("9.00")
    assert ORDER.version == 1


def test_a_rejection_tells_why_and_who_and_the_first_one_stays():
    rejected = ORDER.reject("INSUFFICIENT_CREDIT", "accounting").reject("UNKNOWN", "consumer")
    assert rejected.rejection is not None
    assert (rejected.rejection.reason, rejected.rejection.service) == ("INSUFFICIENT_CREDIT", "accounting")


def test_a_proposed_revision_does_not_hold_before_it_is_confirmed():
    proposed = APPROVED.begin_revise((CURRY, SOUP))
    assert (proposed.line_items, proposed.order_total) == ((SOUP,), Money.of("9.00"))
    assert proposed.revision is not None
    assert proposed.revision.order_total == Money.of("21.35")


def test_a_confirmed_revision_replaces_lines_and_total():
    revised = APPROVED.begin_revise((CURRY, SOUP)).confirm_revise()
    assert (revised.line_items, revised.order_total, revised.revision) == ((CURRY, SOUP), Money.of("21.35"), None)


@pytest.mark.parametrize("pending", ["REVISION_PENDING", "CANCEL_PENDING"])
def test_a_refused_change_leaves_the_order_as_it_was_and_tells_why_until_the_next(pending):
    undo = {"REVISION_PENDING": Order.undo_revise, "CANCEL_PENDING": Order.undo_cancel}[pending]
    undone = undo(IN_STATE[pending], "BLOCKED", "consumer")
    assert undone == replace(APPROVED, version=undone.version, change_refusal=Refusal("BLOCKED", "consumer"))
    for begun in (undone.begin_revise((CURRY,)), undone.begin_cancel()):
        assert begun.change_refusal is None
    assert undone.begin_revise((CURRY,)).confirm_revise().change_refusal is None


@given(st.lists(st.sampled_from(sorted(METHODS)), max_size=30))
def test_whatever_happens(methods):
    """Versions have no gap, and revision and rejection are there exactly when the state says so."""
    order = ORDER
    for method in methods:
        try:
            after = METHODS[method](order)
        except WrongState:
            continue
        assert after is order or after.version == order.version + 1
        assert (after.revision is not None) is (after.state is OrderState.REVISION_PENDING)
        assert (after.rejection is not None) is (after.state is OrderState.REJECTED)
        assert after.change_refusal is None or after.state is OrderState.APPROVED
        if order.state in {OrderState.REJECTED, OrderState.CANCELLED}:
            assert after is order
        order = after
