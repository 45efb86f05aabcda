"""What all services do alike on HTTP: HEAD, the trace's id, header fields in several lines."""

from collections.abc import AsyncIterator

import httpx
import pytest
from apps import APPS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")


@pytest.fixture(params=APPS)
async def http(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=APPS[request.param])
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def without_trace(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "x-trace-id"}


@pytest.mark.parametrize("path", ["/livez", "/docs", "/openapi.json", "/nowhere"])
async def test_head_is_get_without_the_body(http, path):
    get, head = await http.get(path), await http.head(path)
    assert (head.status_code, without_trace(head), head.content) == (get.status_code, without_trace(get), b"")
    assert int(head.headers["content-length"]) == len(get.content) > 0


async def test_head_is_there_wherever_get_is(http):
    """405 would be the answer otherwise; without a database it is what GET says."""
    paths = (await http.get("/openapi.json")).json()["paths"]
    for path in (path for path, operations in paths.items() if "get" in operations):
        assert (await http.head(path)).status_code == (await http.get(path)).status_code != 405
    for path in (path for path, operations in paths.items() if "get" not in operations):
        assert (await http.head(path)).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/livez", 200), ("HEAD", "/livez", 200), ("GET", "/nowhere", 404), ("DELETE", "/livez", 405)],
)
async def test_every_answer_names_its_trace(http, method, path, status):
    answer = await http.request(method, path, headers=[PARENT])
    assert (answer.status_code, answer.headers.get_list("x-trace-id")) == (status, [TRACE])
    own = {(await http.request(method, path)).headers["x-trace-id"] for _ in range(2)}
    assert len(own) == 2
    assert {len(trace_id) for trace_id in own} == {32}


@pytest.mark.parametrize(
    "field", ["Idempotency-Key", "Content-Type", "Content-Encoding", "Last-Event-ID", "Authorization"]
)
async def test_a_field_that_is_no_list_has_one_value(http, field):
    answer = await http.get("/livez", headers=[(field, "1"), (field, "2")])
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:ftgo:repeated-header")
    assert answer.headers["x-trace-id"]
    assert (await http.get("/livez", headers=[(field, "1"), (field, "1")])).status_code == 200


async def test_two_parents_are_none(http):
    answer = await http.get("/livez", headers=[PARENT, (PARENT[0], PARENT[1].replace("4", "5"))])
    assert answer.headers["x-trace-id"] != TRACE
