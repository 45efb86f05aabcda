"""Open restaurants and revise their menus; tell the others."""

from ftgo_contracts.kitchen import events
from ftgo_contracts.types import Address
from ftgo_messaging import UnitOfWork

from ftgo_kitchen.adapters.tables import RESTAURANTS
from ftgo_kitchen.domain.restaurant import MenuItem, Restaurant, RestaurantNotFound


async def create_restaurant(restaurant: Restaurant, uow: UnitOfWork) -> Restaurant:
    _record(restaurant, events.RestaurantCreated, uow)
    return restaurant


async def revise_menu(restaurant_id: str, menu: tuple[MenuItem, ...], uow: UnitOfWork) -> Restaurant:
    restaurant = await uow.find(RESTAURANTS, restaurant_id)
    if restaurant is None:
        raise RestaurantNotFound(f"There is no restaurant {restaurant_id}.")
    revised = restaurant.revise_menu(menu)
    if revised is not restaurant:
        _record(revised, events.RestaurantMenuRevised, uow)
    return revised


def _record(restaurant: Restaurant, event: type[events.RestaurantEvent], uow: UnitOfWork) -> None:
    uow.save(RESTAURANTS, restaurant)
    items = tuple(events.MenuItem(i.id, i.name, i.price) for i in restaurant.menu)
    a = restaurant.address
    address = Address(street1=a.street1, street2=a.street2, city=a.city, state=a.state, zip=a.zip)
    uow.publish(
        event(restaurant_id=restaurant.id, name=restaurant.name, menu_items=items, address=address),
        subject=restaurant.id,
        version=restaurant.version,
    )
