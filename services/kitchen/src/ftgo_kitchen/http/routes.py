"""The REST API of the kitchen: restaurants, menus, tickets."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Path, Query, Request, Response
from ftgo_messaging import Operation, UnitOfWork, new_id
from ftgo_service_kit.json_body import JsonRouter
from ftgo_service_kit.paging import decode_cursor, encode_cursor
from ftgo_service_kit.problems import responses
from ftgo_service_kit.schemas import ABSENT_IF_BLANK, UuidStr

from ftgo_kitchen.adapters import queries
from ftgo_kitchen.adapters.tables import RESTAURANTS, TICKETS
from ftgo_kitchen.application import restaurants, tickets
from ftgo_kitchen.domain.restaurant import RestaurantNotFound
from ftgo_kitchen.domain.ticket import Ticket, TicketNotFound, TicketState
from ftgo_kitchen.http.schemas import (
    AcceptRequest,
    CreatedRestaurant,
    CreateRestaurantRequest,
    RestaurantView,
    ReviseMenuRequest,
    TicketList,
    TicketView,
    restaurant_view,
    ticket_view,
)

RestaurantId = Annotated[UuidStr, Path(alias="restaurantId")]
TicketId = Annotated[UuidStr, Path(alias="ticketId")]

router = JsonRouter()


@router.post("/restaurants", status_code=201, tags=["restaurants"])
async def create_restaurant(body: CreateRestaurantRequest, request: Request, response: Response) -> CreatedRestaurant:
    """Open a restaurant. The order service hears of its menu a moment later."""
    restaurant = body.restaurant(new_id())
    await request.app.state.group_commit.submit(Operation(lambda uow: restaurants.create_restaurant(restaurant, uow)))
    response.headers["Location"] = f"/restaurants/{restaurant.id}"
    return CreatedRestaurant(id=restaurant.id)


@router.get("/restaurants/{restaurantId}", tags=["restaurants"], responses=responses(404))
async def get_restaurant(restaurant_id: RestaurantId, request: Request) -> RestaurantView:
    restaurant = await queries.restaurant_by_id(restaurant_id, request.app.state.engine)
    if restaurant is None:
        raise RestaurantNotFound(f"There is no restaurant {restaurant_id}.")
    return restaurant_view(restaurant)


@router.put("/restaurants/{restaurantId}/menu", tags=["restaurants"], responses=responses(404))
async def put_menu(restaurant_id: RestaurantId, body: ReviseMenuRequest, request: Request) -> RestaurantView:
    """Replace the menu. Orders that were placed before keep their prices."""
    menu = body.menu.items()
    operation = Operation(
        lambda uow: restaurants.revise_menu(restaurant_id, menu, uow), [lambda _: [(RESTAURANTS, restaurant_id)]]
    )
    return restaurant_view(await request.app.state.group_commit.submit(operation))


@router.get("/tickets", tags=["tickets"])
async def list_tickets(
    request: Request,
    restaurant_id: Annotated[UuidStr | None, ABSENT_IF_BLANK, Query(alias="restaurantId")] = None,
    state: Annotated[TicketState | None, ABSENT_IF_BLANK] = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> TicketList:
    """Tickets, oldest first. ``next`` is the cursor of the next page, or null at the end."""
    found = await queries.page_of_tickets(
        restaurant_id, state, decode_cursor(cursor), limit + 1, request.app.state.engine
    )
    page = found[:limit]
    more = encode_cursor(page[-1].ticket.id) if len(found) > limit else None
    return TicketList(tickets=[ticket_view(record) for record in page], next=more)


@router.get("/tickets/{ticketId}", tags=["tickets"], responses=responses(404))
async def get_ticket(ticket_id: TicketId, request: Request) -> TicketView:
    """A ticket's id is its order's id."""
    found = await queries.tickets_by_id([ticket_id], request.app.state.engine)
    if not found:
        raise TicketNotFound(f"There is no ticket {ticket_id}.")
    return ticket_view(found[0])


@router.post("/tickets/{ticketId}/accept", tags=["tickets"], responses=responses(404, 409))
async def accept_ticket(ticket_id: TicketId, body: AcceptRequest, request: Request) -> TicketView:
    """The kitchen takes the order and says when it will be ready."""
    return await _write(ticket_id, lambda uow: tickets.accept(ticket_id, body.ready_by, uow), request)


@router.post("/tickets/{ticketId}/preparing", tags=["tickets"], responses=responses(404, 409))
async def start_preparing(ticket_id: TicketId, request: Request) -> TicketView:
    return await _write(ticket_id, lambda uow: tickets.start_preparing(ticket_id, uow), request)


@router.post("/tickets/{ticketId}/ready", tags=["tickets"], responses=responses(404, 409))
async def be_ready(ticket_id: TicketId, request: Request) -> TicketView:
    return await _write(ticket_id, lambda uow: tickets.be_ready(ticket_id, uow), request)


@router.post("/tickets/{ticketId}/picked-up", tags=["tickets"], responses=responses(404, 409))
async def be_picked_up(ticket_id: TicketId, request: Request) -> TicketView:
    return await _write(ticket_id, lambda uow: tickets.be_picked_up(ticket_id, uow), request)


async def _write(ticket_id: str, use_case: Callable[[UnitOfWork], Awaitable[Ticket]], request: Request) -> TicketView:
    await request.app.state.group_commit.submit(Operation(use_case, [lambda _: [(TICKETS, ticket_id)]]))
    return await get_ticket(ticket_id, request)
