"""Events of the Kitchen service: restaurants (keyed by restaurant id) and tickets (keyed by ticket id)."""

from datetime import datetime

import msgspec
from ftgo_messaging import DomainEvent

from ftgo_contracts.channels import RESTAURANT_EVENTS, TICKET_EVENTS
from ftgo_contracts.kitchen.commands import TicketLineItem
from ftgo_contracts.money import Money
from ftgo_contracts.types import Address, Id


class MenuItem(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    name: str
    price: Money


class RestaurantEvent(DomainEvent, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Every restaurant event carries the whole public state, so that a replica needs only the newest. ``address``:
    since version 2."""

    restaurant_id: Id
    name: str
    menu_items: tuple[MenuItem, ...]
    address: Address | None = None


@RESTAURANT_EVENTS.carries("ftgo.kitchen.RestaurantCreated", version=2)
class RestaurantCreated(RestaurantEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@RESTAURANT_EVENTS.carries("ftgo.kitchen.RestaurantMenuRevised", version=2)
class RestaurantMenuRevised(RestaurantEvent, frozen=True, kw_only=True, rename="camel"):
    pass


class TicketEvent(DomainEvent, frozen=True, kw_only=True, rename="camel"):
    ticket_id: Id
    restaurant_id: Id


@TICKET_EVENTS.carries("ftgo.kitchen.TicketCreated")
class TicketCreated(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    line_items: tuple[TicketLineItem, ...]


@TICKET_EVENTS.carries("ftgo.kitchen.TicketAccepted")
class TicketAccepted(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    ready_by: datetime


@TICKET_EVENTS.carries("ftgo.kitchen.TicketPreparationStarted")
class TicketPreparationStarted(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@TICKET_EVENTS.carries("ftgo.kitchen.TicketReadyForPickup")
class TicketReadyForPickup(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@TICKET_EVENTS.carries("ftgo.kitchen.TicketPickedUp")
class TicketPickedUp(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@TICKET_EVENTS.carries("ftgo.kitchen.TicketCancelled")
class TicketCancelled(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@TICKET_EVENTS.carries("ftgo.kitchen.TicketRevised")
class TicketRevised(TicketEvent, frozen=True, kw_only=True, rename="camel"):
    line_items: tuple[TicketLineItem, ...]
