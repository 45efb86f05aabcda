"""What the REST API of the kitchen takes and gives."""

from datetime import datetime
from typing import Annotated

from ftgo_contracts.money import Money
from ftgo_service_kit.schemas import ABSENT_IF_BLANK, Amount, ApiModel, MoneyOut, Text, Time, UuidStr
from pydantic import Field

from ftgo_kitchen.adapters.queries import TicketRecord
from ftgo_kitchen.domain.restaurant import Address, MenuItem, Restaurant
from ftgo_kitchen.domain.ticket import TicketState


class AddressBody(ApiModel):
    street1: Text
    street2: Annotated[Text | None, ABSENT_IF_BLANK] = None
    city: Text
    state: Text
    zip: Text


class MenuItemBody(ApiModel):
    id: Text
    name: Text
    price: Amount


class MenuBody(ApiModel):
    menu_items: Annotated[list[MenuItemBody], Field(min_length=1, max_length=100)]

    def items(self) -> tuple[MenuItem, ...]:
        return tuple(MenuItem(i.id, i.name, Money.of(i.price)) for i in self.menu_items)


class CreateRestaurantRequest(ApiModel):
    name: Text
    address: AddressBody
    menu: MenuBody

    def restaurant(self, id: str) -> Restaurant:
        a = self.address
        return Restaurant.create(
            id, self.name, Address(a.street1, a.street2, a.city, a.state, a.zip), self.menu.items()
        )


class ReviseMenuRequest(ApiModel):
    menu: MenuBody


class CreatedRestaurant(ApiModel):
    id: UuidStr


class AddressView(ApiModel):
    street1: str
    street2: str | None
    city: str
    state: str
    zip: str


class MenuItemView(ApiModel):
    id: str
    name: str
    price: MoneyOut


class MenuView(ApiModel):
    menu_items: list[MenuItemView]


class RestaurantView(ApiModel):
    id: UuidStr
    name: str
    address: AddressView
    menu: MenuView
    version: int


def restaurant_view(restaurant: Restaurant) -> RestaurantView:
    a = restaurant.address
    return RestaurantView(
        id=restaurant.id,
        name=restaurant.name,
        address=AddressView(street1=a.street1, street2=a.street2, city=a.city, state=a.state, zip=a.zip),
        menu=MenuView(menu_items=[MenuItemView(id=i.id, name=i.name, price=i.price) for i in restaurant.menu]),
        version=restaurant.version,
    )


class AcceptRequest(ApiModel):
    ready_by: Time


class LineItemView(ApiModel):
    menu_item_id: str
    name: str
    quantity: int


class StateView(ApiModel):
    state: TicketState
    at: datetime


class TicketView(ApiModel):
    """``id`` is the order's id. ``history``: every state with its time, oldest first."""

    id: UuidStr
    restaurant_id: UuidStr | None
    state: TicketState
    line_items: list[LineItemView]
    ready_by: datetime | None
    version: int
    history: list[StateView]


class TicketList(ApiModel):
    tickets: list[TicketView]
    next: str | None


def ticket_view(record: TicketRecord) -> TicketView:
    ticket = record.ticket
    return TicketView(
        id=ticket.id,
        restaurant_id=ticket.restaurant_id,
        state=ticket.state,
        line_items=[
            LineItemView(menu_item_id=i.menu_item_id, name=i.name, quantity=i.quantity) for i in ticket.line_items
        ],
        ready_by=ticket.ready_by,
        version=ticket.version,
        history=[StateView(state=state, at=at) for state, at in record.history],
    )
