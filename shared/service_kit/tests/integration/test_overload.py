"""Past its bounds a service answers 503 with Retry-After, at once, and goes on by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import APIRouter, Request
from ftgo_local.postgres import Postgres
from ftgo_messaging import Operation, UnitOfWork, new_id
from ftgo_messaging.outbox.table import outbox_table
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Service
from ftgo_service_kit.settings import ServiceSettings
from sqlalchemy import MetaData, text

METADATA = MetaData()
outbox_table(METADATA)
FILL = text(
    "INSERT INTO outbox (message_id, channel, key, shard, headers, body) "
    "SELECT gen_random_uuid(), 'x', 'x', 0, '{}', '' FROM generate_series(1, :count)"
)
Build = Callable[..., Service]


@pytest.fixture
async def dsn(postgres: Postgres) -> str:
    return (await postgres.create_service_databases(["overload"]))["overload"]


@pytest.fixture
async def build(dsn: str) -> AsyncIterator[Build]:
    services: list[Service] = []

    def build(**settings: int) -> Service:
        service = Service(
            "overload", ServiceSettings(port=1, database_url=dsn, FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1", **settings)
        )
        app = create_app("Overload", "For tests.")
        router = APIRouter()
        service.go_on = asyncio.Event()  # type: ignore[attr-defined]

        @router.post("/things", status_code=201)
        async def make(request: Request, wait: bool = False) -> str:
            async def body(_: UnitOfWork) -> str:
                if wait:
                    await service.go_on.wait()  # type: ignore[attr-defined]
                return new_id()

            made: str = await request.app.state.group_commit.submit(Operation(body))
            return made

        app.include_router(router)
        service.attach(app)
        service.group_commit.start()
        services.append(service)
        return service

    yield build
    for service in services:
        service.go_on.set()  # type: ignore[attr-defined]
        await service.group_commit.stop()
        await service.pools.close()


def client(service: Service) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url="http://overload")


def refused(answer: httpx.Response, retry_after: str) -> None:
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == retry_after
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:ftgo:unavailable"


async def test_a_full_outbox_refuses_requests_until_it_has_room(build: Build) -> None:
    service = build(FTGO_OUTBOX_LIMIT=100)
    async with service.engine.begin() as connection:
        await connection.run_sync(METADATA.drop_all)
        await connection.run_sync(METADATA.create_all)
        await connection.execute(FILL, {"count": 99})
    watching = asyncio.create_task(service.outbox_bound.watch(every=0.05))
    async with client(service) as http:
        await service.outbox_bound.look()
        assert (await http.post("/things")).status_code == 201
        async with service.engine.begin() as connection:
            await connection.execute(FILL, {"count": 1})
        await service.outbox_bound.look()
        refused(await http.post("/things"), "10")
        assert (await http.get("/livez")).status_code == 200
        async with service.engine.begin() as connection:  # not at once: it would be full again a moment later
            await connection.execute(text("DELETE FROM outbox WHERE position <= 5"))
        await service.outbox_bound.look()
        refused(await http.post("/things"), "10")
        async with service.engine.begin() as connection:
            await connection.execute(text("DELETE FROM outbox WHERE position <= 20"))
        await service.outbox_bound.look()
        assert (await http.post("/things")).status_code == 201
    watching.cancel()


async def test_a_row_that_stays_behind_does_not_make_an_outbox_full(build: Build) -> None:
    service = build(FTGO_OUTBOX_LIMIT=100)
    async with service.engine.begin() as connection:
        await connection.run_sync(METADATA.drop_all)
        await connection.run_sync(METADATA.create_all)
        await connection.execute(FILL, {"count": 1000})
        await connection.execute(text("DELETE FROM outbox WHERE position BETWEEN 2 AND 990"))
    await service.outbox_bound.look()
    assert not service.outbox_bound.full


async def test_a_full_queue_refuses_at_once(build: Build) -> None:
    """Two workers are busy, one request waits: the fourth is one too many."""
    service = build(FTGO_QUEUE_LIMIT=1)
    async with client(service) as http:
        waiting = []
        for _ in range(2):
            waiting.append(asyncio.create_task(http.post("/things", params={"wait": True})))
            await until(lambda: service.group_commit.waiting == 0 and service.group_commit.busy == len(waiting))
        waiting.append(asyncio.create_task(http.post("/things", params={"wait": True})))
        await until(lambda: service.group_commit.waiting == 1)
        refused(await http.post("/things"), "1")
        service.go_on.set()  # type: ignore[attr-defined]
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {201}
        assert (await http.post("/things")).status_code == 201


async def test_too_many_requests_are_refused_and_probes_are_not(build: Build) -> None:
    service = build(FTGO_REQUEST_LIMIT=2)
    async with client(service) as http:
        waiting = [asyncio.create_task(http.post("/things", params={"wait": True})) for _ in range(2)]
        await until(lambda: service.group_commit.busy > 0)
        refused(await http.post("/things"), "1")
        assert (await http.get("/livez")).status_code == 200
        assert "ftgo_http_requests_in_progress 2.0" in (await http.get("/metrics")).text
        service.go_on.set()  # type: ignore[attr-defined]
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {201}
        assert (await http.post("/things")).status_code == 201


async def test_a_pool_without_a_free_connection_is_waited_for_and_then_refused(build: Build) -> None:
    """Every connection is held by somebody else for longer than a request may wait (5 s)."""
    service = build()
    writes = service.pools.writes
    async with client(service) as http, writes.connect(), writes.connect():
        refused(await http.post("/things"), "1")
    async with client(service) as http:
        assert (await http.post("/things")).status_code == 201


async def test_readers_in_need_of_connections_keep_them_from_nobody_else(build: Build) -> None:
    """Every connection for reads is held. Writes, probes and whatever works by itself have their own."""
    service = build(pool_size=2)
    async with client(service) as http, service.engine.connect(), service.engine.connect():
        assert (await http.post("/things")).status_code == 201
        ready = (await http.get("/readyz")).json()
        assert ready["database"] == "ok"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - the service has no event for its tests
            await asyncio.sleep(0.01)
