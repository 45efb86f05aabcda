"""What this service knows of consumers and restaurants: copies, fed by their owners' events.

An event may come late, twice or out of order. The version in the row decides: only a newer one is written. That is
idempotent without a record of message ids. One that is far ahead is not believed: it would make the replica deaf to
its owner, whose own versions would all be old from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftgo_contracts.consumer.events import ConsumerEvent
from ftgo_contracts.kitchen.events import RestaurantEvent
from ftgo_messaging import Aggregates, UnitOfWork
from ftgo_messaging.messages import codec
from ftgo_messaging.runtime.errors import Undecodable
from sqlalchemy import text

from ftgo_order.adapters.tables import consumer_replicas, restaurant_replicas
from ftgo_order.domain.pricing import MenuItem


@dataclass(frozen=True, slots=True)
class ConsumerReplica:
    id: str
    first_name: str
    last_name: str
    status: str
    version: int

    @property
    def blocked(self) -> bool:
        return self.status == "BLOCKED"


@dataclass(frozen=True, slots=True)
class RestaurantReplica:
    """``menu`` is by item id, in the order of the restaurant's menu."""

    id: str
    name: str
    menu: Mapping[str, MenuItem]
    version: int


def _consumer_from_row(row: Mapping[str, Any]) -> ConsumerReplica:
    return ConsumerReplica(str(row["id"]), row["first_name"], row["last_name"], row["status"], row["version"])


def _consumer_to_row(consumer: ConsumerReplica) -> dict[str, Any]:
    return {
        "id": consumer.id,
        "first_name": consumer.first_name,
        "last_name": consumer.last_name,
        "status": consumer.status,
        "version": consumer.version,
    }


def _restaurant_from_row(row: Mapping[str, Any]) -> RestaurantReplica:
    items: tuple[MenuItem, ...] = codec.decode(row["menu"], tuple[MenuItem, ...])
    return RestaurantReplica(str(row["id"]), row["name"], {item.id: item for item in items}, row["version"])


def _restaurant_to_row(restaurant: RestaurantReplica) -> dict[str, Any]:
    return {
        "id": restaurant.id,
        "name": restaurant.name,
        "menu": codec.encode(tuple(restaurant.menu.values())).decode(),
        "version": restaurant.version,
    }


# Orders only read them: a replica that is a moment old is as good as one that will be old in a moment.
CONSUMERS = Aggregates(consumer_replicas, "id", _consumer_from_row, _consumer_to_row, lock=False)
RESTAURANTS = Aggregates(restaurant_replicas, "id", _restaurant_from_row, _restaurant_to_row, lock=False)

LARGEST_GAP = 1000
"""Versions by which an event may be ahead of the replica. What a channel has lost meanwhile makes a gap; people who
rename themselves or write menus do not make one of this size."""

_NEWER = f"WHERE replica.version < excluded.version AND excluded.version <= replica.version + {LARGEST_GAP}"
_KEEP_CONSUMER = text(
    "WITH kept AS (INSERT INTO consumer_replicas AS replica "  # noqa: S608 - constants
    "(id, first_name, last_name, status, version) "
    "VALUES (:id, :first_name, :last_name, :status, :version) "
    "ON CONFLICT (id) DO UPDATE SET first_name = excluded.first_name, last_name = excluded.last_name, "
    f"status = excluded.status, version = excluded.version {_NEWER} RETURNING 1) "
    "SELECT EXISTS (SELECT 1 FROM kept), (SELECT version FROM consumer_replicas WHERE id = :id)"
)
_KEEP_RESTAURANT = text(
    "WITH kept AS (INSERT INTO restaurant_replicas AS replica (id, name, menu, version) "  # noqa: S608
    "VALUES (:id, :name, CAST(:menu AS json), :version) "
    "ON CONFLICT (id) DO UPDATE SET name = excluded.name, menu = excluded.menu, version = excluded.version "
    f"{_NEWER} RETURNING 1) "
    "SELECT EXISTS (SELECT 1 FROM kept), (SELECT version FROM restaurant_replicas WHERE id = :id)"
)


async def replicate_consumer(event: ConsumerEvent, version: int, uow: UnitOfWork) -> None:
    """Remember the consumer as of ``version``, unless something newer is known. Raises Undecodable (a dead letter) for
    a version far ahead of the known one."""
    name = event.name
    replica = ConsumerReplica(event.consumer_id, name.first_name, name.last_name, event.status, version)
    _check(version, (await uow.execute(_KEEP_CONSUMER, _consumer_to_row(replica)))[0])


async def replicate_restaurant(event: RestaurantEvent, version: int, uow: UnitOfWork) -> None:
    """Remember the restaurant and its menu as of ``version``, unless something newer is known. Raises Undecodable (a
    dead letter) for a version far ahead of the known one."""
    menu = {item.id: MenuItem(item.id, item.name, item.price) for item in event.menu_items}
    replica = RestaurantReplica(event.restaurant_id, event.name, menu, version)
    _check(version, (await uow.execute(_KEEP_RESTAURANT, _restaurant_to_row(replica)))[0])


def _check(version: int, outcome: tuple[bool, int | None]) -> None:
    kept, known = outcome
    if not kept and known is not None and version > known + LARGEST_GAP:
        raise Undecodable(f"version {version} is more than {LARGEST_GAP} ahead of {known}, which is known")
