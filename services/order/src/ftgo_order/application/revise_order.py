"""Propose other lines for an order. The kitchen and accounting decide; the saga brings the answer."""

from collections.abc import Sequence

from ftgo_contracts.order.events import OrderRevisionProposed
from ftgo_messaging.aggregates import Refs
from ftgo_messaging.unit_of_work import UnitOfWork

from ftgo_order import sagas
from ftgo_order.adapters.replicas import RESTAURANTS
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application.create_order import UnknownRestaurant
from ftgo_order.application.recording import publish, record
from ftgo_order.domain.order import Order, OrderNotFound, total_of
from ftgo_order.domain.pricing import RequestedLineItem, price


def restaurant_of(order_id: str, uow: UnitOfWork) -> Refs:
    """The second stage of loading: known once the order is."""
    order = uow.peek(ORDERS, order_id)
    return [] if order is None else [(RESTAURANTS, order.restaurant_id)]


async def revise_order(order_id: str, requested: Sequence[RequestedLineItem], uow: UnitOfWork) -> Order:
    """APPROVED -> REVISION_PENDING, and the saga starts. ``requested`` are all lines that the order is to have; they
    are priced by today's menu. Raises OrderNotFound, WrongState, InvalidLineItems or UnknownMenuItem."""
    order = await uow.find(ORDERS, order_id)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    restaurant = await uow.find(RESTAURANTS, order.restaurant_id)
    if restaurant is None:
        raise UnknownRestaurant(f"No menu of the restaurant {order.restaurant_id} is known.")
    line_items = price(restaurant.menu, requested, "revisedOrderLineItems")
    order = order.begin_revise(line_items)
    record(order, uow)
    publish(OrderRevisionProposed, order, uow, revised_total=total_of(line_items))
    await sagas.revise_order.start(order, uow)
    return order
