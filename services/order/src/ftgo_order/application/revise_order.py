"""Propose other lines for an order. Consumer, kitchen and accounting decide; the saga brings the answer."""

from collections.abc import Sequence

from ftgo_contracts.order.events import OrderRevisionProposed
from ftgo_messaging import Refs, UnitOfWork

from ftgo_order import sagas
from ftgo_order.adapters.replicas import CONSUMERS, RESTAURANTS
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application.recording import contract_lines, publish, record
from ftgo_order.application.refusals import UnknownRestaurant, refuse_blocked
from ftgo_order.domain.order import Order, OrderLineItem, OrderNotFound, total_of
from ftgo_order.domain.pricing import RequestedLineItem, UnknownMenuItem, reprice


def replicas_for(order_id: str, uow: UnitOfWork) -> Refs:
    """The second stage of loading: known once the order is."""
    order = uow.peek(ORDERS, order_id)
    return [] if order is None else [(CONSUMERS, order.consumer_id), (RESTAURANTS, order.restaurant_id)]


async def revise_order(order_id: str, requested: Sequence[RequestedLineItem], uow: UnitOfWork) -> Order:
    """APPROVED -> REVISION_PENDING, and the saga starts. ``requested`` are all lines that the order is to have. Raises
    OrderNotFound, ConsumerIsBlocked, UnknownRestaurant, InvalidLineItems, UnknownMenuItem or WrongState."""
    order = await uow.find(ORDERS, order_id)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    await refuse_blocked(order.consumer_id, uow)
    line_items = await _priced(order, requested, uow)
    order = order.begin_revise(line_items)
    record(order, uow)
    publish(
        OrderRevisionProposed,
        order,
        uow,
        revised_total=total_of(line_items),
        revised_line_items=contract_lines(line_items),
    )
    await sagas.revise_order.start(order, uow)
    return order


async def _priced(order: Order, requested: Sequence[RequestedLineItem], uow: UnitOfWork) -> tuple[OrderLineItem, ...]:
    """Without a menu, what the order has may still stay or become less."""
    restaurant = await uow.find(RESTAURANTS, order.restaurant_id)
    if restaurant is not None:
        return reprice(order.line_items, restaurant.menu, requested)
    try:
        return reprice(order.line_items, {}, requested)
    except UnknownMenuItem as refusal:
        message = f"No menu of the restaurant {order.restaurant_id} is known: the order can only stay or become less."
        raise UnknownRestaurant(message) from refusal
