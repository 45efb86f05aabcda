"""Orders as numbers. What a process has committed is counted, once; repeated requests and messages change nothing."""

from ftgo_messaging import UnitOfWork
from prometheus_client import Counter

from ftgo_order.adapters.tables import order_history
from ftgo_order.domain.order import OrderState

PLACED = Counter("ftgo_orders_placed_total", "Orders that were accepted")
CHANGED = Counter("ftgo_order_changes_total", "Changes of orders after that, by the state that they came to", ["state"])

for state in set(OrderState) - {OrderState.APPROVAL_PENDING}:
    CHANGED.labels(state.value)  # a series that is missing looks like a service that is away


def count(uow: UnitOfWork) -> None:
    """A callback for ``Transactions.after_commit``: each change of an order is a row of the history."""
    for row in uow.appended(order_history):
        if row["version"] == 1:
            PLACED.inc()
        else:
            CHANGED.labels(row["state"]).inc()
