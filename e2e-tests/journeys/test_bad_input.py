"""Wrong requests are refused with a problem that names the field, and nothing is written."""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from ftgo_local.scenes.stage import ADDRESS, Stage, in_minutes, line_items

Json = dict[str, Any]

TABLES = {
    "consumer": ("consumers",),
    "kitchen": ("restaurants", "tickets"),
    "accounting": ("accounts", "account_entries"),
    "order": ("orders", "order_history", "idempotency_keys", "saga_instances"),
}
"""What a request of each service may write. Messages leave the outbox, so they are not counted here."""


@dataclass(frozen=True)
class World:
    """Ids that exist, for the placeholders in the cases below."""

    consumer: str
    restaurant: str
    order: str
    nobody: str


@pytest.fixture(scope="module")
async def world(stage: Stage) -> World:
    consumer = await stage.consumer()
    order = await stage.place(consumer)
    await stage.settled(order)
    return World(consumer, await stage.restaurant(), order, str(uuid.uuid4()))


@pytest.fixture(scope="module")
async def rows(stage: Stage, world: World) -> dict[str, int]:
    """How much there is before the first of these tests: as much as there has to be after each."""
    return await _rows(stage)


@pytest.fixture(autouse=True)
async def nothing_written(stage: Stage, rows: dict[str, int]) -> AsyncIterator[None]:
    yield
    assert await _rows(stage) == rows


async def _rows(stage: Stage) -> dict[str, int]:
    if stage.control is None:  # the databases are out of reach
        return {}
    return {service: await stage.control.count(service, *tables) for service, tables in TABLES.items()}


ORDER: Json = {
    "consumerId": "{consumer}",
    "restaurantId": "{restaurant}",
    "deliveryTime": in_minutes(60),
    "deliveryAddress": ADDRESS,
    "lineItems": line_items([("1", 1)]),
}
REGISTRATION: Json = {
    "name": {"firstName": "Ada", "lastName": "Lace"},
    "email": "ada@example.com",
    "orderLimit": "9.99",
}
RESTAURANT: Json = {
    "name": "Soup Bar",
    "address": ADDRESS,
    "menu": {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"}]},
}


def _menu(**changed: Any) -> Json:
    return {"menu": {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"} | changed]}}


def _line(**changed: Any) -> Json:
    return ORDER | {"lineItems": [{"menuItemId": "1", "quantity": 1} | changed]}


def _without(body: Json, field: str) -> Json:
    return {name: value for name, value in body.items() if name != field}


WRONG_ORDERS: dict[str, tuple[Json, str]] = {
    "no consumer": (_without(ORDER, "consumerId"), "consumerId"),
    "consumer not a UUID": (ORDER | {"consumerId": "bob"}, "consumerId"),
    "consumer a number": (ORDER | {"consumerId": 7}, "consumerId"),
    "consumer null": (ORDER | {"consumerId": None}, "consumerId"),
    "no restaurant": (_without(ORDER, "restaurantId"), "restaurantId"),
    "restaurant not a UUID": (ORDER | {"restaurantId": "'; drop table orders"}, "restaurantId"),
    "unknown restaurant": (ORDER | {"restaurantId": "{nobody}"}, "restaurantId"),
    "unknown field": (ORDER | {"discount": "100"}, "discount"),
    "snake case": (_without(ORDER, "consumerId") | {"consumer_id": "{consumer}", "tip": 1}, "tip"),
    "time without zone": (ORDER | {"deliveryTime": "2030-01-01T12:00:00"}, "deliveryTime"),
    "no time": (ORDER | {"deliveryTime": "soon"}, "deliveryTime"),
    "address a string": (ORDER | {"deliveryAddress": "9 Hill Lane"}, "deliveryAddress"),
    "address without city": (ORDER | {"deliveryAddress": _without(ADDRESS, "city")}, "deliveryAddress.city"),
    "NUL in the address": (ORDER | {"deliveryAddress": ADDRESS | {"city": "a\0b"}}, "deliveryAddress.city"),
    "lone surrogate": (ORDER | {"deliveryAddress": ADDRESS | {"city": "\ud800"}}, "deliveryAddress.city"),
    "very long city": (ORDER | {"deliveryAddress": ADDRESS | {"city": "x" * 10_000}}, "deliveryAddress.city"),
    "no lines": (ORDER | {"lineItems": []}, "lineItems"),
    "lines an object": (ORDER | {"lineItems": {"1": 1}}, "lineItems"),
    "1000 lines": (ORDER | {"lineItems": line_items([("1", 1)] * 1000)}, "lineItems"),
    "negative quantity": (_line(quantity=-1), "lineItems.0.quantity"),
    "no quantity": (_line(quantity=0), "lineItems.0.quantity"),
    "huge quantity": (_line(quantity=10**30), "lineItems.0.quantity"),
    "half a portion": (_line(quantity=0.5), "lineItems.0.quantity"),
    "quantity as text": (_line(quantity="2"), "lineItems.0.quantity"),
    "quantity true": (_line(quantity=True), "lineItems.0.quantity"),
    "unknown item": (_line(menuItemId="99"), "lineItems.0.menuItemId"),
    "price given": (_line(price="0.01"), "lineItems.0.price"),
}


@pytest.mark.parametrize("case", WRONG_ORDERS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_wrong_order_is_refused(stage: Stage, world: World, method: str, case: str) -> None:
    body, field = WRONG_ORDERS[case]
    path = "/orders" if method == "POST" else f"/orders/{uuid.uuid4()}"
    await _refused(stage, world, method, "order", path, 422, field, body)


ELSEWHERE: dict[str, tuple[str, str, str, int, str, Json | None]] = {
    "consumer without name": ("POST", "consumer", "/consumers", 422, "name", _without(REGISTRATION, "name")),
    "limit with three decimals": (
        *("POST", "consumer", "/consumers", 422, "orderLimit"),
        REGISTRATION | {"orderLimit": "1.005"},
    ),
    "limit negative": ("POST", "consumer", "/consumers", 422, "orderLimit", REGISTRATION | {"orderLimit": "-1.00"}),
    "limit not a number": ("POST", "consumer", "/consumers", 422, "orderLimit", REGISTRATION | {"orderLimit": "NaN"}),
    "limit a float": ("POST", "consumer", "/consumers", 422, "orderLimit", REGISTRATION | {"orderLimit": 0.1}),
    "empty name": (
        *("POST", "consumer", "/consumers", 422, "name.firstName"),
        REGISTRATION | {"name": {"firstName": "", "lastName": "L"}},
    ),
    "no email": ("POST", "consumer", "/consumers", 422, "email", REGISTRATION | {"email": "nowhere"}),
    "consumer with unknown field": ("POST", "consumer", "/consumers", 422, "admin", REGISTRATION | {"admin": True}),
    "price with three decimals": (
        *("POST", "kitchen", "/restaurants", 422, "menu.menuItems.0.price"),
        RESTAURANT | _menu(price="1.005"),
    ),
    "price negative": (
        *("POST", "kitchen", "/restaurants", 422, "menu.menuItems.0.price"),
        RESTAURANT | _menu(price="-1"),
    ),
    "price a float": (
        *("POST", "kitchen", "/restaurants", 422, "menu.menuItems.0.price"),
        RESTAURANT | _menu(price=12.8),
    ),
    "menu with two equal ids": (
        *("POST", "kitchen", "/restaurants", 422, "menu"),
        RESTAURANT | {"menu": {"menuItems": [{"id": "1", "name": n, "price": "1.00"} for n in ("A", "B")]}},
    ),
    "menu of an unknown restaurant": ("PUT", "kitchen", "/restaurants/{nobody}/menu", 404, "", _menu()),
    "accept without time": ("POST", "kitchen", "/tickets/{order}/accept", 422, "readyBy", {}),
    "accept at no time": ("POST", "kitchen", "/tickets/{order}/accept", 422, "readyBy", {"readyBy": "soon"}),
    "accept an unknown ticket": ("POST", "kitchen", "/tickets/{nobody}/accept", 404, "", {"readyBy": in_minutes(9)}),
    "prepare an unknown ticket": ("POST", "kitchen", "/tickets/{nobody}/preparing", 404, "", None),
    "ticket not a UUID": ("GET", "kitchen", "/tickets/7", 422, "ticketId", None),
    "tickets in no state": ("GET", "kitchen", "/tickets?state=BURNT", 422, "state", None),
    "unknown ticket": ("GET", "kitchen", "/tickets/{nobody}", 404, "", None),
    "credit with three decimals": (
        *("PUT", "accounting", "/accounts/{consumer}/credit-limit", 422, "creditLimit"),
        {"creditLimit": "0.001"},
    ),
    "credit of nobody": (
        *("PUT", "accounting", "/accounts/{nobody}/credit-limit", 404, ""),
        {"creditLimit": "1.00"},
    ),
    "unknown account": ("GET", "accounting", "/accounts/{nobody}", 404, "", None),
    "account not a UUID": ("POST", "accounting", "/accounts/7/disable", 422, "consumerId", None),
    "unknown order": ("GET", "order", "/orders/{nobody}", 404, "", None),
    "order not a UUID": ("GET", "order", "/orders/7", 422, "orderId", None),
    "cancel an unknown order": ("POST", "order", "/orders/{nobody}/cancel", 404, "", None),
    "revise an unknown order": (
        *("POST", "order", "/orders/{nobody}/revise", 404, ""),
        {"revisedOrderLineItems": line_items([("1", 1)])},
    ),
    "revise to nothing": (
        *("POST", "order", "/orders/{order}/revise", 422, "revisedOrderLineItems"),
        {"revisedOrderLineItems": []},
    ),
    "revise to a negative quantity": (
        *("POST", "order", "/orders/{order}/revise", 422, "revisedOrderLineItems.0.quantity"),
        {"revisedOrderLineItems": line_items([("1", -2)])},
    ),
    "revise to an unknown item": (
        *("POST", "order", "/orders/{order}/revise", 422, "revisedOrderLineItems.0.menuItemId"),
        {"revisedOrderLineItems": line_items([("99", 1)])},
    ),
    "orders of no consumer": ("GET", "order", "/orders", 422, "consumerId", None),
    "page of no orders": ("GET", "order", "/orders?consumerId={consumer}&limit=0", 422, "limit", None),
    "page of many orders": ("GET", "order", "/orders?consumerId={consumer}&limit=1000000", 422, "limit", None),
    "no such page": ("GET", "order", "/orders?consumerId={consumer}&cursor=%00", 422, "cursor", None),
    "events of an unknown order": ("GET", "order", "/orders/{nobody}/events", 404, "", None),
    "no such path": ("GET", "order", "/pizza", 404, "", None),
    "no such method": ("DELETE", "order", "/orders/{order}", 405, "", None),
}


@pytest.mark.parametrize("case", ELSEWHERE)
async def test_a_wrong_request_is_refused(stage: Stage, world: World, case: str) -> None:
    method, service, path, status, field, body = ELSEWHERE[case]
    await _refused(stage, world, method, service, path, status, field, body)


WRITES = [
    ("POST", "order", "/orders"),
    ("PUT", "order", "/orders/{nobody}"),
    ("POST", "order", "/orders/{order}/revise"),
    ("POST", "consumer", "/consumers"),
    ("PUT", "consumer", "/consumers/{consumer}/name"),
    ("POST", "kitchen", "/restaurants"),
    ("PUT", "kitchen", "/restaurants/{restaurant}/menu"),
    ("POST", "kitchen", "/tickets/{order}/accept"),
    ("PUT", "accounting", "/accounts/{consumer}/credit-limit"),
]


@pytest.mark.parametrize(("method", "service", "path"), WRITES)
async def test_a_body_that_is_no_json_object_is_refused(
    stage: Stage, world: World, method: str, service: str, path: str
) -> None:
    for raw in (b'{"consumerId": ', b"not JSON", b"\xff\xfe", b"{'single': 'quotes'}"):
        await _refused(stage, world, method, service, path, 400, "", raw)
    for raw in (b"", b"null", b"[]", b'"text"', b"7"):
        await _refused(stage, world, method, service, path, 422, "", raw)
    await _refused(stage, world, method, service, path, None, "", b"[" * 30_000)


@pytest.mark.parametrize(("method", "service", "path"), WRITES)
@pytest.mark.parametrize("chunked", [False, True], ids=["length given", "chunked"])
async def test_a_body_of_a_megabyte_is_refused(
    stage: Stage, world: World, method: str, service: str, path: str, chunked: bool
) -> None:
    body = json.dumps({"consumerId": "x" * 1024 * 1024}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 16_384):
            yield body[start : start + 16_384]

    await _refused(stage, world, method, service, path, 413, "", pieces() if chunked else body)


async def _refused(
    stage: Stage,
    world: World,
    method: str,
    service: str,
    path: str,
    status: int | None,
    field: str,
    body: Json | bytes | AsyncIterator[bytes] | None,
) -> None:
    url = getattr(stage.urls, service) + _filled(path, world)
    headers = {"Content-Type": "application/json"}
    content = _filled(json.dumps(body), world).encode() if isinstance(body, dict) else body
    answer = await stage.client.request(method, url, content=content, headers=headers)
    assert answer.status_code == status or (status is None and 400 <= answer.status_code < 500), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"].startswith("urn:ftgo:")
    assert problem["detail"]
    assert "Traceback" not in answer.text
    if field:
        named = [error["field"] for error in problem.get("errors", [])]
        assert field in problem["detail"] or any(field in name for name in named), problem


def _filled(text: str, world: World) -> str:
    for name, value in vars(world).items():
        text = text.replace("{" + name + "}", value)
    return text
