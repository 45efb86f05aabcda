"""Create an order, by POST (once per idempotency key) or by PUT (once per order id), and start its saga."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from ftgo_contracts.money import Money
from ftgo_contracts.order.events import OrderCreated
from ftgo_messaging import DomainError, Refs, UnitOfWork
from ftgo_messaging.messages import codec

from ftgo_order import sagas
from ftgo_order.adapters.replicas import CONSUMERS, RESTAURANTS
from ftgo_order.adapters.tables import IDEMPOTENCY_KEYS, ORDERS, IdempotencyKey
from ftgo_order.application.recording import contract_address, contract_lines, publish, record
from ftgo_order.application.refusals import UnknownRestaurant, refuse_blocked
from ftgo_order.domain.order import Delivery, Order
from ftgo_order.domain.pricing import RequestedLineItem, price


class DeliveryTimeInThePast(DomainError):
    """Nothing can be delivered then any more."""

    slug = "delivery-time-in-the-past"
    status = 422


class KeyUsedOtherwise(DomainError):
    """The idempotency key came with another request before."""

    slug = "idempotency-key-reused"
    status = 422


class OrderIdTaken(DomainError):
    """There is an order with this id, and it was asked for in other words."""

    slug = "order-id-taken"
    status = 409


@dataclass(frozen=True, slots=True)
class CreateOrder:
    """What somebody asks for."""

    consumer_id: str
    restaurant_id: str
    delivery: Delivery
    line_items: tuple[RequestedLineItem, ...]

    @property
    def fingerprint(self) -> str:
        """Equal exactly for equal requests."""
        return hashlib.sha256(codec.encode(self)).hexdigest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The order that a request has made; the total is that of the time of the request."""

    order_id: str
    order_total: Money


def needs(request: CreateOrder, order_id: str | None = None, key: str | None = None) -> Refs:
    """What the use cases below read."""
    yield CONSUMERS, request.consumer_id
    yield RESTAURANTS, request.restaurant_id
    if order_id is not None:
        yield ORDERS, order_id
    if key is not None:
        yield IDEMPOTENCY_KEYS, scoped(request, key)


def scoped(request: CreateOrder, key: str) -> str:
    """A consumer's key: another consumer may use the same text."""
    return f"{request.consumer_id}:{key}"


async def create_order(request: CreateOrder, order_id: str, uow: UnitOfWork) -> Order:
    """Create the order and start its saga. Raises DeliveryTimeInThePast, ConsumerIsBlocked, UnknownRestaurant,
    InvalidLineItems or UnknownMenuItem. A repetition does not come here: it gets its old answer at any time."""
    # By the clock that the order's history is kept by. To ask the database's would cost a statement.
    _refuse_past(request.delivery.time, datetime.now(UTC))
    await refuse_blocked(request.consumer_id, uow)
    restaurant = await uow.find(RESTAURANTS, request.restaurant_id)
    if restaurant is None:
        raise UnknownRestaurant(
            f"restaurantId: no restaurant {request.restaurant_id} is known, or not yet: one just opened takes a moment"
        )
    order = Order.create(
        id=order_id,
        consumer_id=request.consumer_id,
        restaurant_id=request.restaurant_id,
        restaurant_name=restaurant.name,
        line_items=price(restaurant.menu, request.line_items),
        delivery=request.delivery,
        fingerprint=request.fingerprint,
    )
    record(order, uow)
    publish(
        OrderCreated,
        order,
        uow,
        line_items=contract_lines(order.line_items),
        restaurant_name=order.restaurant_name,
        delivery_time=order.delivery.time,
        delivery_address=contract_address(order.delivery.address),
    )
    await sagas.create_order.start(order, uow)
    return order


def _refuse_past(time: datetime, now: datetime) -> None:
    if time <= now:
        message = f"must be later than now, which is {now:%Y-%m-%dT%H:%M:%SZ} here"
        raise DeliveryTimeInThePast(f"deliveryTime: {message}", errors=[{"field": "deliveryTime", "message": message}])


async def create_order_once(request: CreateOrder, order_id: str, key: str | None, uow: UnitOfWork) -> Accepted:
    """The same key and request give the same answer, however often and however much at once.

    Two transactions that meet the key for the first time both try to insert it. The second fails with a unique
    violation and is to be run again: then it finds the key. Raises KeyUsedOtherwise for another request."""
    if key is None:
        order = await create_order(request, order_id, uow)
        return Accepted(order.id, order.order_total)
    known = await uow.find(IDEMPOTENCY_KEYS, scoped(request, key))
    if known is not None:
        if known.fingerprint != request.fingerprint:
            raise KeyUsedOtherwise("Idempotency-Key: it came with another body before. Another order needs another key")
        return Accepted(known.order_id, known.order_total)
    order = await create_order(request, order_id, uow)
    uow.save(
        IDEMPOTENCY_KEYS,
        IdempotencyKey(
            key=scoped(request, key),
            consumer_id=request.consumer_id,
            fingerprint=order.fingerprint,
            order_id=order.id,
            order_total=order.order_total,
            at=datetime.now(UTC),
        ),
    )
    return Accepted(order.id, order.order_total)


async def put_order(request: CreateOrder, order_id: str, uow: UnitOfWork) -> tuple[Order, bool]:
    """The order with this id, and whether this call has created it. Raises OrderIdTaken if it was made by another
    request. At once from two sides: as with ``create_order_once``."""
    order = await uow.find(ORDERS, order_id)
    if order is None:
        return await create_order(request, order_id, uow), True
    if order.fingerprint != request.fingerprint:
        raise OrderIdTaken(
            f"An order {order_id} exists, made by a request with another body. Another order needs another id."
        )
    return order, False
