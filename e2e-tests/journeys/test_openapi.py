"""Every service answers as its own /openapi.json says, to requests that are generated from it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from ftgo_local.scenes.stage import Stage
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
async def ids(stage: Stage) -> dict[str, str]:
    """Things that exist, by the name of the path parameter, for this test alone: the generated requests change them."""
    consumer = await stage.consumer()
    restaurant = await stage.restaurant([{"id": "1", "name": "Soup", "price": "5.00"}])
    order = await stage.place(consumer, [("1", 1)], restaurant)
    await stage.settled(order)
    return {
        "consumerId": consumer,
        "orderId": order,
        "ticketId": order,
        "restaurantId": restaurant,
    }


@pytest.mark.parametrize("service", ["consumer", "kitchen", "accounting", "order"])
async def test_a_service_answers_as_it_says(stage: Stage, ids: dict[str, str], service: str) -> None:
    url = getattr(stage.urls, service)
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{url}/openapi.json")
    results: list[Any] = list(schema.get_all_operations())
    operations = [result.ok() for result in results]  # raises for one that the document declares wrongly
    assert len(operations) > 5
    broken = [message for operation in operations async for message in _broken(operation, url, ids)]
    assert not broken, "\n\n".join(broken)


async def _broken(operation: Any, url: str, ids: dict[str, str]) -> Any:
    """What is wrong with the answers of one operation: to any ids, to ids that exist, and to wrong requests."""
    names = [name for name in ids if "{" + name + "}" in operation.path]
    existing = {"path_parameters": {name: ids[name] for name in names}} if names else {}
    for strategy in _strategies(operation, existing):
        try:
            await asyncio.to_thread(_explore, strategy, url)
        except BaseExceptionGroup as group:
            yield f"{operation.label}: " + "\n".join(str(error) for error in group.exceptions)
        except Exception as error:
            yield f"{operation.label}: {error}"


def _strategies(operation: Any, existing: dict[str, Any]) -> Iterator[Any]:
    yield operation.as_strategy()
    if existing:
        yield operation.as_strategy(**existing)
    if operation.body or operation.query or operation.path_parameters:
        yield operation.as_strategy(GenerationMode.NEGATIVE)


def _explore(strategy: Any, url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False

        @BOUNDED
        @given(case=strategy)
        def explore(case: Any) -> None:
            answer = case.call(base_url=url, session=session, timeout=40)
            stream = answer.headers.get("content-type", [""])[0].startswith("text/event-stream")
            # The document's schema is that of the whole stream; the check takes it for that of one event.
            checks = [c for c in CHECKS if not (stream and c is response_schema_conformance)]
            case.validate_response(answer, checks=checks)

        explore()
