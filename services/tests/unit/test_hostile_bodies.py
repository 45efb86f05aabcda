"""A request of 64 KiB, whatever is in it, keeps a service no longer than some ordinary ones: the event loop that reads
it serves everybody else as well."""

import importlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args, get_origin

import httpx
import pytest
from annotated_types import MaxLen
from apps import APPS
from fastapi.routing import APIRoute
from ftgo_service_kit.body_limit import MAX_BODY
from ftgo_service_kit.json_body import JsonRoute
from pydantic import BaseModel

ID = "0197a3c0-0000-7000-8000-000000000001"
ADDRESS = {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"}
BODIES: dict[str, Any] = {
    "AcceptRequest": {"readyBy": "2100-01-01T18:00:00Z"},
    "CreateRestaurantRequest": {
        "name": "Soup Bar",
        "address": ADDRESS,
        "menu": {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"}]},
    },
    "CreditLimitRequest": {"creditLimit": "5.00"},
    "Name": {"firstName": "Ada", "lastName": "Lovelace"},
    "OrderRequest": {
        "consumerId": ID,
        "restaurantId": ID,
        "deliveryTime": "2100-01-01T18:00:00Z",
        "deliveryAddress": ADDRESS,
        "lineItems": [{"menuItemId": "1", "quantity": 1}],
    },
    "RegisterConsumerRequest": {"name": {"firstName": "Ada", "lastName": "Lovelace"}, "email": "a@b.c"},
    "ReviseMenuRequest": {"menu": {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"}]}},
    "RevisionRequest": {"revisedOrderLineItems": [{"menuItemId": "1", "quantity": 1}]},
}


def routes_with_a_body() -> Iterator[tuple[str, APIRoute, type[BaseModel]]]:
    for service in APPS:
        router = importlib.import_module(f"ftgo_{service}.http.routes").router
        for route in router.routes:
            if route.body_field is not None:
                yield service, route, route.body_field.field_info.annotation


ROUTES = list(routes_with_a_body())


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and those of its fields."""
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from models(part)


def test_every_route_that_takes_a_body_reads_strict_json_into_bounded_lists():
    assert len(ROUTES) >= 9
    assert {model.__name__ for _, _, model in ROUTES} == set(BODIES)
    lists = 0
    for _, route, root in ROUTES:
        assert isinstance(route, JsonRoute)
        for model in models(root):
            for name, field in model.model_fields.items():
                # A tuple's length is looked at only when all its entries have been validated.
                assert get_origin(field.annotation) not in {tuple, set, frozenset, dict}, (model, name)
                if get_origin(field.annotation) is list:
                    lists += 1
                    assert any(isinstance(part, MaxLen) for part in field.metadata), (model, name)
    assert lists >= 4


def filled(part: bytes) -> bytes:
    """An array of as many as go in."""
    return b"[" + b",".join([part] * ((MAX_BODY - 1000) // (len(part) + 1))) + b"]"


def fields(number: int) -> bytes:
    return b"{" + b",".join(b'"%x":0' % i for i in range(number)) + b"}"


VALUES: dict[str, bytes] = {
    "empty objects": filled(b"{}"),
    "numbers": filled(b"0"),
    "large numbers": filled(b"1e308"),
    "texts": filled(b'""'),
    "right lines": filled(b'{"menuItemId":"1","quantity":1}'),
    "wrong lines": b"[" + b",".join([fields(MAX_BODY // 5000)] * 100) + b"]",
    "unknown fields": fields(7000),
    "equal fields": b"{" + b",".join([b'"a":0'] * 10_000) + b"}",
    "arrays in arrays": b"[" * 60_000,
    "closed arrays in arrays": b"[" * 900 + b"]" * 900,
    "objects in objects": b'{"a":' * 10_000 + b"0" + b"}" * 10_000,
    "a long text": b'"' + b"a" * 60_000 + b'"',
    "a long text of accents": b'"' + "é".encode() * 30_000 + b'"',
    "invisible letters": b'"' + "\u200b".encode() * 20_000 + b'"',
    "escapes": b'"' + b"\\u00e9" * 10_000 + b'"',
    "a long number": b"9" * 60_000,
    "long numbers": filled(b"9" * 4200),
    "a long fraction": b"0." + b"9" * 60_000,
}


def hostile(body: dict[str, Any]) -> Iterator[bytes]:
    """The body with each of its values, at any depth, replaced by each of those above."""
    text = json.dumps(body)
    for path in paths(body):
        marked = json.loads(text)
        inside = marked
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = "@"
        for value in VALUES.values():
            yield json.dumps(marked).encode().replace(b'"@"', value)
    yield from VALUES.values()


def paths(body: Any) -> Iterator[list[Any]]:
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        yield [key]
        if isinstance(value, dict | list):
            yield from ([key, *rest] for rest in paths(value))


@pytest.fixture
async def http(service: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=APPS[service])
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(("service", "route", "model"), ROUTES, ids=lambda p: getattr(p, "path", None))
async def test_no_body_costs_much_more_than_an_ordinary_one(http, service, route, model):
    """In time of the processor, the best of several: other processes do not count. An ordinary body takes 0.4 ms; with
    21,000 empty objects in a list that was validated before it was counted, it was 300 times as much."""
    (method,) = route.methods
    path = route.path_format.format(**dict.fromkeys(route.param_convertors, ID))

    async def cost(body: bytes, times: int) -> float:
        spent = []
        for _ in range(times):
            request = http.build_request(method, path, content=body, headers={"content-type": "application/json"})
            began = time.process_time()
            answer = await http.send(request)
            spent.append(time.process_time() - began)
            assert answer.status_code in expected
        return min(spent)

    expected = {400, 422}
    ordinary = await cost(b"{}", 20)
    for body in hostile(BODIES[model.__name__]):
        assert len(body) <= MAX_BODY
        assert await cost(body, 1) < 60 * ordinary or await cost(body, 5) < 40 * ordinary, body[:200]
