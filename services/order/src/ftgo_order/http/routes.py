"""The REST API of orders. Writes end in a use case and are answered after their commit; reads ask the tables."""

from typing import Annotated, Any

from fastapi import Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from ftgo_messaging import Operation, new_id
from ftgo_service_kit.header_fields import none_match
from ftgo_service_kit.json_body import JsonRouter
from ftgo_service_kit.paging import decode_cursor, encode_cursor
from ftgo_service_kit.problems import NotFound, responses
from ftgo_service_kit.schemas import UuidStr
from pydantic import BeforeValidator

from ftgo_order.adapters import queries
from ftgo_order.adapters.replicas import CONSUMERS, RESTAURANTS
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application.cancel_order import cancel_order
from ftgo_order.application.create_order import create_order_once, needs, put_order
from ftgo_order.application.revise_order import replicas_for, revise_order
from ftgo_order.domain.order import Order, OrderNotFound, OrderState
from ftgo_order.http.schemas import (
    ConsumerView,
    OrderAccepted,
    OrderPage,
    OrderRequest,
    OrderView,
    RestaurantView,
    RevisionRequest,
    consumer_view,
    order_view,
    requested,
    restaurant_view,
)
from ftgo_order.http.waiting import EventStream, preferred_wait, settled

OrderId = Annotated[UuidStr, Path(alias="orderId")]
ConsumerId = Annotated[UuidStr, Path(alias="consumerId")]
RestaurantId = Annotated[UuidStr, Path(alias="restaurantId")]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
# A browser that has seen no id yet may send an empty one.
LastEventId = Annotated[int, BeforeValidator(lambda given: given or 0), Header(ge=0, le=2**31 - 1)]

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "Settled, and nothing has happened since. Do not reconnect."},
}

router = JsonRouter(tags=["orders"])


@router.post("/orders", status_code=202)
async def post_order(
    body: OrderRequest, request: Request, response: Response, idempotency_key: IdempotencyKey = None
) -> OrderAccepted:
    """Create an order. With an Idempotency-Key a repetition creates no second one and gets the same answer."""
    command, order_id = body.command(), new_id()
    operation = Operation(
        lambda uow: create_order_once(command, order_id, idempotency_key, uow),
        [lambda _: needs(command, key=idempotency_key)],
    )
    accepted = await request.app.state.group_commit.submit(operation)
    response.headers["Location"] = f"/orders/{accepted.order_id}"
    return OrderAccepted(
        order_id=accepted.order_id, state=OrderState.APPROVAL_PENDING, order_total=accepted.order_total
    )


@router.put(
    "/orders/{orderId}",
    responses={202: {"model": OrderView, "description": "Created by this request"}, **responses(409)},
)
async def put_order_by_id(order_id: OrderId, body: OrderRequest, request: Request, response: Response) -> OrderView:
    """Create an order under an id of the client's own: 202 the first time, 200 with the same order afterwards."""
    command = body.command()
    operation = Operation(lambda uow: put_order(command, order_id, uow), [lambda _: needs(command, order_id)])
    order, created = await request.app.state.group_commit.submit(operation)
    response.status_code = 202 if created else 200
    response.headers["Location"] = f"/orders/{order_id}"
    return _tagged(order, response)


@router.get("/orders/{orderId}", response_model=OrderView, responses=responses(404))
async def get_order(
    order_id: OrderId,
    request: Request,
    response: Response,
    prefer: Annotated[str | None, Header(description="wait=N: answer when the order is settled")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> OrderView | Response:
    """The order. With ``Prefer: wait=N`` the answer comes when it is settled, or after N (at most 30) seconds."""
    wait = preferred_wait(prefer)
    order = await settled(order_id, wait, request)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    if wait:
        response.headers["Preference-Applied"] = f"wait={wait}"
    if not none_match(if_none_match, _etag(order)):
        return Response(status_code=304, headers={"ETag": _etag(order)})
    return _tagged(order, response)


@router.get("/orders")
async def list_orders(
    request: Request,
    consumer_id: Annotated[UuidStr, Query(alias="consumerId")],
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> OrderPage:
    """The orders of a consumer, the newest first, page by page."""
    found = await queries.orders_of(consumer_id, decode_cursor(cursor), limit + 1, request.app.state.engine)
    page = found[:limit]
    more = encode_cursor(page[-1].id) if len(found) > limit else None
    return OrderPage(orders=[order_view(order) for order in page], next=more)


@router.get("/orders/{orderId}/events", response_class=StreamingResponse, responses={**_STREAM, **responses(404)})
async def get_order_events(order_id: OrderId, request: Request, last_event_id: LastEventId = 0) -> Response:
    """Every change of the order as server-sent events, from the first or from after Last-Event-ID. The stream ends
    after a settled state (APPROVED, REJECTED, CANCELLED)."""
    order = await queries.find(ORDERS, order_id, request.app.state.engine)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    if order.state.settled and order.version <= last_event_id:
        return Response(status_code=204)
    return EventStream(order_id, last_event_id, request)


@router.post("/orders/{orderId}/cancel", status_code=202, responses=responses(404, 409))
async def post_cancel(order_id: OrderId, request: Request, response: Response) -> OrderView:
    """Begin to cancel an APPROVED order. The answer is the order in CANCEL_PENDING."""
    operation = Operation(lambda uow: cancel_order(order_id, uow), [lambda _: [(ORDERS, order_id)]])
    return _tagged(await request.app.state.group_commit.submit(operation), response)


@router.post("/orders/{orderId}/revise", status_code=202, responses=responses(404, 409))
async def post_revise(order_id: OrderId, body: RevisionRequest, request: Request, response: Response) -> OrderView:
    """Propose other lines for an APPROVED order. A dish that the order has keeps its price; a new one has today's.
    The answer is the order in REVISION_PENDING."""
    items = requested(body.revised_order_line_items)
    operation = Operation(
        lambda uow: revise_order(order_id, items, uow),
        [lambda _: [(ORDERS, order_id)], lambda uow: replicas_for(order_id, uow)],
    )
    return _tagged(await request.app.state.group_commit.submit(operation), response)


@router.get("/consumers/{consumerId}", tags=["replicas"], responses=responses(404))
async def get_consumer(consumer_id: ConsumerId, request: Request) -> ConsumerView:
    """What this service knows of a consumer."""
    consumer = await queries.find(CONSUMERS, consumer_id, request.app.state.engine)
    if consumer is None:
        raise NotFound(f"No consumer {consumer_id} is known here, or not yet: one just registered takes a moment.")
    return consumer_view(consumer)


@router.get("/restaurants/{restaurantId}", tags=["replicas"], responses=responses(404))
async def get_restaurant(restaurant_id: RestaurantId, request: Request) -> RestaurantView:
    """What this service knows of a restaurant and its menu."""
    restaurant = await queries.find(RESTAURANTS, restaurant_id, request.app.state.engine)
    if restaurant is None:
        raise NotFound(f"No restaurant {restaurant_id} is known here, or not yet: one just opened takes a moment.")
    return restaurant_view(restaurant)


def _etag(order: Order) -> str:
    return f'"{order.version}"'


def _tagged(order: Order, response: Response) -> OrderView:
    response.headers["ETag"] = _etag(order)
    return order_view(order)
