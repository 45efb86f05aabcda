"""The local steps of the sagas: what happens to the order itself, in the saga's transaction.

Each may be repeated; a repetition writes nothing and publishes nothing.
"""

from collections.abc import Callable

from ftgo_contracts.order import events
from ftgo_messaging import UnitOfWork

from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application.recording import contract_lines, publish, record
from ftgo_order.domain.order import Order


async def approve(order_id: str, uow: UnitOfWork) -> None:
    """APPROVAL_PENDING -> APPROVED."""
    if order := await _step(order_id, Order.approve, uow):
        publish(events.OrderApproved, order, uow)


async def reject(order_id: str, reason: str, service: str, uow: UnitOfWork) -> None:
    """APPROVAL_PENDING -> REJECTED, with the reason and the service that refused."""
    if order := await _step(order_id, lambda o: o.reject(reason, service), uow):
        publish(events.OrderRejected, order, uow, reason=reason, service=service)


async def undo_cancel(order_id: str, reason: str, service: str, uow: UnitOfWork) -> None:
    """CANCEL_PENDING -> APPROVED, with the refusal. No event: nobody was told that a cancellation had begun."""
    await _step(order_id, lambda o: o.undo_cancel(reason, service), uow)


async def confirm_cancel(order_id: str, uow: UnitOfWork) -> None:
    """CANCEL_PENDING -> CANCELLED."""
    if order := await _step(order_id, Order.confirm_cancel, uow):
        publish(events.OrderCancelled, order, uow)


async def undo_revise(order_id: str, reason: str, service: str, uow: UnitOfWork) -> None:
    """REVISION_PENDING -> APPROVED with the lines as they were, and the refusal."""
    await _step(order_id, lambda o: o.undo_revise(reason, service), uow)


async def confirm_revise(order_id: str, uow: UnitOfWork) -> None:
    """REVISION_PENDING -> APPROVED with the new lines and the new total."""
    if order := await _step(order_id, Order.confirm_revise, uow):
        publish(events.OrderRevised, order, uow, line_items=contract_lines(order.line_items))


async def _step(order_id: str, change: Callable[[Order], Order], uow: UnitOfWork) -> Order | None:
    """The order after the change, or None if there was nothing to change."""
    order = await uow.find(ORDERS, order_id)
    if order is None:
        raise LookupError(f"a saga works on the order {order_id}, which does not exist")
    changed = change(order)
    if changed is order:
        return None
    record(changed, uow)
    return changed
