"""Each family of errors is answered by application/problem+json, through a real application."""

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ftgo_messaging import DomainError
from ftgo_messaging.runtime.errors import Overloaded, StaleAggregate
from ftgo_service_kit.app import create_app
from ftgo_service_kit.body_limit import MAX_BODY, LimitBody
from ftgo_service_kit.problems import NotFound, Unprocessable
from ftgo_service_kit.schemas import Amount, ApiModel, Text, UuidStr
from pydantic import Field
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Line(ApiModel):
    menu_item_id: Text
    quantity: int = Field(ge=1, le=100)


class Order(ApiModel):
    line_items: list[Line]


class WrongState(DomainError):
    slug = "wrong-state"


ERRORS: dict[str, Exception] = {
    "domain": WrongState("The ticket is PREPARING.", state="PREPARING"),
    "missing": NotFound("There is no ticket 1."),
    "unprocessable": Unprocessable("lineItems.0.menuItemId: not on the menu"),
    "overloaded": Overloaded("1000 requests are waiting already"),
    "transient": StaleAggregate("changed meanwhile"),
    "refused": ConnectionRefusedError(),
    "pool": PoolTimeout(),
    "gone": InterfaceError("SELECT 1", None, OSError("socket gone")),
    "bug": KeyError("secret"),
    "file": FileNotFoundError(2, "/secret"),
    "cancelled": asyncio.CancelledError("secret"),
    "exit": SystemExit("secret"),
    "constraint": DBAPIError("INSERT", None, Exception("no such column")),
}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    app = create_app("Test", "For tests.")
    app.add_middleware(LimitBody)

    @app.post("/orders")
    async def create(body: Order) -> Order:
        return body

    @app.get("/orders")
    async def orders(limit: int) -> int:
        return limit

    @app.get("/accounts/{account_id}")
    async def account(account_id: UuidStr, limit: Amount = "0") -> str:
        return account_id

    @app.get("/raise/{which}")
    @app.post("/raise/{which}", include_in_schema=False)
    async def fail(which: str) -> None:
        raise ERRORS[which]

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.get("/broken-stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "one"
            raise KeyError("too late")

        return StreamingResponse(parts())

    return app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    # Raises what leaves the application: an answered error must not.
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["type"]) == (status, status, f"urn:ftgo:{slug}")
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(
    ("which", "status", "slug"),
    [
        ("domain", 409, "wrong-state"),
        ("missing", 404, "not-found"),
        ("unprocessable", 422, "unprocessable"),
        ("overloaded", 503, "unavailable"),
        ("transient", 503, "unavailable"),
        ("refused", 503, "unavailable"),
        ("pool", 503, "unavailable"),
        ("gone", 503, "unavailable"),
        ("bug", 500, "internal"),
        ("file", 500, "internal"),
        ("cancelled", 500, "internal"),
        ("exit", 500, "internal"),
        ("constraint", 500, "internal"),
    ],
)
async def test_an_error_is_answered_by_its_family(http, which, status, slug):
    answer = await http.get(f"/raise/{which}")
    problem = assert_problem(answer, status, slug)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "secret" not in answer.text
    if which == "domain":
        assert (problem["detail"], problem["state"]) == ("The ticket is PREPARING.", "PREPARING")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"lineItems": [{"menuItemId": "1", "quantity": 0}]}, "lineItems.0.quantity"),
        ({"lineItems": [{"menuItemId": "", "quantity": 1}]}, "lineItems.0.menuItemId"),
        ({"lineItems": [{"menuItemId": "a\u0000", "quantity": 1}]}, "lineItems.0.menuItemId"),
        ({"lineItems": [], "colour": "red"}, "colour"),
        ({}, "lineItems"),
        ([], "body"),
        ("text", "body"),
    ],
)
async def test_a_validation_error_names_the_field(http, body, field):
    problem = assert_problem(await http.post("/orders", json=body), 422, "validation")
    assert [e["field"] for e in problem["errors"]] == [field]
    assert problem["detail"].startswith(field)


@pytest.mark.parametrize(("method", "words"), [("GET", "Nothing was changed."), ("POST", "is not known: look first")])
async def test_an_outage_says_what_is_away_and_whether_to_repeat(http, method, words):
    problem = assert_problem(await http.request(method, "/raise/refused"), 503, "unavailable")
    assert str(problem["detail"]).startswith("The service cannot reach its database at the moment. ")
    assert words in problem["detail"]
    assert "Retry-After" in problem["detail"]


async def test_a_query_parameter_is_named_too(http):
    problem = assert_problem(await http.get("/orders", params={"limit": "many"}), 422, "validation")
    assert problem["errors"][0]["field"] == "limit"


async def test_a_missing_body_is_a_validation_error(http):
    assert_problem(await http.post("/orders"), 422, "validation")


async def test_a_long_list_of_errors_is_cut(http):
    lines = [{"menuItemId": "1", "quantity": 0}] * 500
    assert len(assert_problem(await http.post("/orders", json={"lineItems": lines}), 422, "validation")["errors"]) == 20


@pytest.mark.parametrize("body", [b"{", b"{'a': 1}", b'"\xff', b"[" * 60_000])
async def test_what_is_no_json_is_a_400(http, body):
    answer = await http.post("/orders", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


async def test_half_a_surrogate_pair_in_a_field_name_is_a_422(http):
    answer = await http.post(
        "/orders", content=b'{"lineItems": [], "\\ud800": 1}', headers={"content-type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert answer.json()["status"] == answer.status_code


async def test_unknown_paths_and_methods_are_problems(http):
    assert_problem(await http.get("/nowhere"), 404, "not-found")
    answer = await http.delete("/orders")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "HEAD, GET, POST"


@pytest.mark.parametrize("path", ["/orders", "/raw"])
@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
async def test_a_body_over_the_limit_is_refused(http, path, announced):
    body = b"x" * (MAX_BODY + 1)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    answer = await http.post(path, content=body if announced else chunks())
    assert_problem(answer, 413, "too-large")
    assert answer.headers["connection"] == "close"


async def test_a_body_of_just_the_limit_is_read(http):
    assert (await http.post("/raw", content=b"x" * MAX_BODY)).json() == MAX_BODY


async def test_after_the_start_of_an_answer_the_error_is_left_to_the_server(http):
    with pytest.raises(KeyError, match="too late"):
        await http.get("/broken-stream")


async def test_a_cancelled_request_stays_cancelled(app):
    reading = asyncio.Event()

    async def receive():
        reading.set()
        await asyncio.get_running_loop().create_future()

    async def send(_):
        raise AssertionError("a request that nobody waits for is not answered")

    scope = {"type": "http", "method": "POST", "path": "/raw", "headers": [], "query_string": b"", "app": app}
    task = asyncio.create_task(app(scope, receive, send))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_openapi_document_declares_problems_and_has_no_loose_ends(http):
    schema = (await http.get("/openapi.json")).json()
    create = schema["paths"]["/orders"]["post"]["responses"]
    assert {"200", "400", "413", "422", "503"} <= set(create)
    assert "application/problem+json" in create["422"]["content"]

    def references(part: object) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [r for v in part.values() for r in references(v)]
        return [r for v in part for r in references(v)] if isinstance(part, list) else []

    names = {r.removeprefix("#/components/schemas/") for r in references(schema)}
    assert "Problem" in names
    assert names <= set(schema["components"]["schemas"])


async def test_an_id_may_be_written_in_capitals(http):
    answer = await http.get("/accounts/0197A3C0-0000-7000-8000-00000000000F")
    assert (answer.status_code, answer.json()) == (200, "0197a3c0-0000-7000-8000-00000000000f")


@pytest.mark.parametrize(
    ("url", "field", "words"),
    [
        ("/accounts/1", "account_id", "is not a UUID like"),
        ("/accounts/0197a3c0-0000-7000-8000-00000000000f?limit=1.234", "limit", "is not an amount with at most two"),
    ],
)
async def test_a_wrong_text_is_explained_in_words_not_by_a_pattern(http, url, field, words):
    (error,) = (await http.get(url)).json()["errors"]
    assert error["field"] == field
    assert error["message"].startswith(words)


async def test_the_documentation_needs_no_other_host(http):
    page = (await http.get("/docs")).text
    scripts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(scripts) == 3
    for script in scripts:
        assert script.startswith("/")
        assert (await http.get(script)).status_code == 200
