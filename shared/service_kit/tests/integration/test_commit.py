"""A commit that fails is told, a client that goes away leaves no connection behind, and a paused process no lock."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from fastapi import APIRouter, Request
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging import Operation, UnitOfWork, new_id
from ftgo_messaging.consumer.duplicates import Claim, claim
from ftgo_messaging.consumer.tables import processed_messages_table
from ftgo_messaging.runtime.connection import begin
from ftgo_messaging.testing.eventually import eventually
from ftgo_service_kit.app import create_app
from ftgo_service_kit.database import WRITES
from ftgo_service_kit.service import Service
from ftgo_service_kit.settings import ServiceSettings
from sqlalchemy import MetaData, text

METADATA = MetaData()
processed_messages_table(METADATA)
TABLES = (
    "DROP TABLE IF EXISTS things",
    "CREATE TABLE things (id uuid PRIMARY KEY, bad boolean NOT NULL)",
    "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF NEW.bad THEN RAISE EXCEPTION 'only at the commit'; END IF; RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION refuse()",
)
INSERT = text("INSERT INTO things (id, bad) VALUES (CAST(:id AS uuid), :bad)")
WAIT = text("SELECT pg_sleep(0.02)")


@pytest.fixture
async def service(postgres: Postgres) -> AsyncIterator[Service]:
    dsn = (await postgres.create_service_databases(["commit"]))["commit"]
    settings = ServiceSettings(port=free_port(), database_url=dsn, FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1")
    service = Service("commit", settings)
    async with service.engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        for statement in TABLES:
            await connection.execute(text(statement))
    app = create_app("Commit", "For tests.")
    router = APIRouter()

    @router.post("/things", status_code=201)
    async def make(request: Request, bad: bool = False) -> str:
        async def body(uow: UnitOfWork) -> str:
            await uow.execute(WAIT)
            await uow.execute(INSERT, {"id": new_id(), "bad": bad})
            return "made"

        made: str = await request.app.state.group_commit.submit(Operation(body))
        return made

    app.include_router(router)
    service.attach(app)
    service.group_commit.start()
    server = service._http_server()
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: started(server))
    yield service
    server.should_exit = True
    await serving
    await service.group_commit.stop()
    await service.pools.close()


async def started(server: object) -> None:
    assert getattr(server, "started", False)


async def post(service: Service, path: str, patience: float = 20.0) -> bytes:
    """The status line of the answer; empty when the client went away before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.settings.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    try:
        return await asyncio.wait_for(reader.readline(), patience)
    except TimeoutError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_commit_that_fails_is_no_success(service: Service) -> None:
    answers = await asyncio.gather(*(post(service, f"/things?bad={n % 4 == 0}") for n in range(12)))
    assert [b"500" in answer for answer in answers] == [n % 4 == 0 for n in range(12)]
    assert [b"201" in answer for answer in answers] == [n % 4 != 0 for n in range(12)]
    async with service.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 9


async def test_clients_that_go_away_leave_no_connection_behind(service: Service) -> None:
    await asyncio.gather(*(post(service, "/things", random.uniform(0.0, 0.05)) for _ in range(200)))

    async def all_back() -> None:
        assert service.pools.writes.pool.checkedout() == 0  # type: ignore[attr-defined]

    await eventually(all_back, within=30)
    sql = (
        "SELECT count(*), count(*) FILTER (WHERE state = 'idle in transaction') FROM pg_stat_activity WHERE datname = "
    )
    async with service.engine.connect() as connection:
        sessions, hanging = (await connection.execute(text(f"{sql} current_database()"))).one()
    assert sessions <= WRITES + 1
    assert hanging == 0
    assert b"201" in await post(service, "/things")


async def test_a_paused_owner_of_an_id_is_cut_off_by_the_database(service: Service) -> None:
    """It stopped in the middle of its transaction; its successor waits for the same id, but not for ever."""
    message = Claim("test", new_id())
    async with service.engine.connect() as connection:
        limit = (await connection.execute(text("SHOW idle_in_transaction_session_timeout"))).scalar_one()
    assert limit == "20s"
    with pytest.raises(Exception, match=r"terminat|broke|closed"):  # noqa: PT012 - raised where the paused one goes on
        async with begin(service.engine) as paused:
            await paused.execute(text("SET LOCAL idle_in_transaction_session_timeout = '1s'"))  # not to wait so long
            assert await claim(paused, "c", [message]) == {message}
            async with begin(service.engine) as successor:
                assert await claim(successor, "c", [message]) == {message}
            await paused.execute(text("SELECT 1"))
