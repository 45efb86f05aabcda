"""Begin to cancel an order. Whether it is cancelled, the kitchen decides; the saga brings the answer."""

from ftgo_messaging import UnitOfWork

from ftgo_order import sagas
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application.recording import record
from ftgo_order.domain.order import Order, OrderNotFound


async def cancel_order(order_id: str, uow: UnitOfWork) -> Order:
    """APPROVED -> CANCEL_PENDING, and the saga starts. Raises OrderNotFound or WrongState."""
    order = await uow.find(ORDERS, order_id)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    order = order.begin_cancel()
    record(order, uow)
    await sagas.cancel_order.start(order, uow)
    return order
