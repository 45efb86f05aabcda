"""The Restaurant aggregate: a name, an address and a menu."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftgo_contracts.money import Money
from ftgo_messaging import DomainError


class RestaurantNotFound(DomainError):
    """There is no restaurant with this id."""

    slug = "restaurant-not-found"
    status = 404


class InvalidMenu(DomainError):
    """Two items of a menu share an id."""

    slug = "invalid-menu"
    status = 422


@dataclass(frozen=True, slots=True)
class Address:
    street1: str
    street2: str | None
    city: str
    state: str
    zip: str


@dataclass(frozen=True, slots=True)
class MenuItem:
    id: str
    name: str
    price: Money


@dataclass(frozen=True, slots=True)
class Restaurant:
    """``version`` grows by one with every new menu."""

    id: str
    name: str
    address: Address
    menu: tuple[MenuItem, ...]
    version: int

    @classmethod
    def create(cls, id: str, name: str, address: Address, menu: tuple[MenuItem, ...]) -> Restaurant:
        return cls(id, name, address, _checked(menu), 1)

    def revise_menu(self, menu: tuple[MenuItem, ...]) -> Restaurant:
        """Prices of orders that were placed before stay as they were."""
        if menu == self.menu:
            return self
        return replace(self, menu=_checked(menu), version=self.version + 1)


def _checked(menu: tuple[MenuItem, ...]) -> tuple[MenuItem, ...]:
    ids = [item.id for item in menu]
    for item_id in ids:
        if ids.count(item_id) > 1:
            raise InvalidMenu(f"menu.menuItems: two items have the id {item_id!r}")
    return menu
