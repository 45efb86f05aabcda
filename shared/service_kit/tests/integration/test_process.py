"""A service as a process of its own, on a real PostgreSQL: starts without Kafka, stops in order, publishes the rest."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_local.platform import Platform
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.kafka.topics import PARTITIONS, ensure_topics

HERE = Path(__file__).parent
NO_KAFKA = "127.0.0.1:1"


@pytest.fixture(scope="module")
async def dsn(postgres: Postgres) -> str:
    """A database with nothing in it but what two migrations, started together, have made."""
    dsn = (await postgres.create_service_databases(["small"]))["small"]
    both = await asyncio.gather(*(_process(dsn, NO_KAFKA, 1, "migrate") for _ in range(2)))
    said = [(await p.communicate())[0].decode() for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    return dsn


async def _process(dsn: str, bootstrap: str, port: int, *arguments: str) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "FTGO_SMALL_DATABASE_URL": dsn,
        "FTGO_SMALL_PORT": str(port),
        "FTGO_KAFKA_BOOTSTRAP": bootstrap,
    }
    command = [sys.executable, "-m", "small_service", *arguments]
    return await asyncio.create_subprocess_exec(
        *command, cwd=HERE, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


@asynccontextmanager
async def running(
    dsn: str, bootstrap: str, *parts: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """A small service that answers. It is killed at the end, if it is not gone by then."""
    port = free_port()
    process = await _process(dsn, bootstrap, port, *parts)

    async def answers() -> None:
        try:
            assert (await http.get("/livez")).status_code == 200
        except httpx.TransportError as error:
            raise AssertionError from error

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        try:
            await eventually(answers, within=30)
            yield process, http
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def outbox(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("SELECT count(*) FROM outbox")
    finally:
        await connection.close()


async def test_without_kafka_rest_is_served_and_readiness_says_why_not(dsn):
    async with running(dsn, NO_KAFKA) as (process, http):
        assert (await http.post("/notes")).status_code == 201
        assert await outbox(dsn) == 1

        async def failing() -> None:
            answer = await http.get("/readyz")
            state = answer.json()
            assert answer.status_code == 503
            assert (state["database"], state["consumers"]) == ("ok", {"small": "waiting"})
            assert state["relay"].startswith("failing: ")

        await eventually(failing)
        assert (await http.get("/livez")).status_code == 200
        assert "ftgo_outbox_published_total" in (await http.get("/metrics")).text
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert time.monotonic() - began < 15
        assert await outbox(dsn) == 1
        assert b"Traceback" not in said


async def until_ready(http: httpx.AsyncClient) -> None:
    async def ready() -> None:
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)

    await eventually(ready, within=30)


async def until_waiting(http: httpx.AsyncClient) -> None:
    async def waiting() -> None:
        assert (await http.get("/waiting")).json() is True

    await eventually(waiting)


async def test_a_signal_lets_the_running_request_end(dsn, kafka: Kafka):
    await ensure_topics(kafka.bootstrap, ["small.events"], PARTITIONS)
    async with running(dsn, kafka.bootstrap) as (process, http):
        await until_ready(http)
        assert (await http.get("/beside")).json() == 1
        request = asyncio.create_task(http.post("/notes", params={"after": "signal"}))
        await until_waiting(http)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert (await request).status_code == 201
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert b"part_not_stopped" not in said
        # This event, and the one that an earlier process left behind while Kafka was away.
        assert await outbox(dsn) == 0


@pytest.mark.slow
async def test_what_is_committed_after_the_last_request_was_cut_off_is_published_too(dsn, kafka: Kafka):
    await ensure_topics(kafka.bootstrap, ["small.events"], PARTITIONS)
    async with running(dsn, kafka.bootstrap) as (process, http):
        await until_ready(http)
        before = await published(kafka)
        request = asyncio.create_task(http.post("/notes", params={"after": "http"}))
        await until_waiting(http)
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
        await asyncio.gather(request, return_exceptions=True)
        assert process.returncode == 0, said.decode()
        assert (await outbox(dsn), await published(kafka)) == (0, before + 1)


async def test_api_worker_and_relay_are_a_service_as_three_processes(dsn, kafka: Kafka):
    await ensure_topics(kafka.bootstrap, ["small.events"], PARTITIONS)
    async with (
        running(dsn, kafka.bootstrap, "api") as (_, api),
        running(dsn, kafka.bootstrap, "worker") as (_, worker),
        running(dsn, kafka.bootstrap, "relay") as (relay_process, relay),
    ):
        for http in (api, worker, relay):
            await until_ready(http)
        assert [set((await x.get("/readyz")).json()["consumers"]) for x in (api, worker, relay)] == [
            set(),
            {"small"},
            set(),
        ]
        assert [(await x.post("/notes")).status_code for x in (worker, relay)] == [404, 404]
        noted = (await api.post("/notes")).json()["messageId"]
        await eventually(lambda: handled(dsn, noted), within=30)

        relay_process.send_signal(signal.SIGTERM)
        await relay_process.wait()
        noted = (await api.post("/notes")).json()["messageId"]
        assert await outbox(dsn) == 1
        async with running(dsn, kafka.bootstrap, "relay"):
            await eventually(lambda: handled(dsn, noted), within=30)


async def connections(dsn: str, application: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
            application,
        )
    finally:
        await connection.close()


async def owner(http: httpx.AsyncClient) -> None:
    status = (await http.get("/readyz")).json()["relayStatus"]
    assert (status["role"], status["shards"]) == ("owner", 64)
    assert status["lastRound"] > 0


@pytest.mark.slow
async def test_a_notify_is_sent_from_process_to_process_and_only_then(dsn, kafka: Kafka):
    await ensure_topics(kafka.bootstrap, ["small.events"], PARTITIONS)
    async with running(dsn, kafka.bootstrap) as (process, http):
        await until_ready(http)
        await eventually(lambda: owner(http), within=30)
        noted = (await http.post("/notes")).json()["messageId"]
        await eventually(lambda: handled(dsn, noted), within=30)
        assert await connections(dsn, "ftgo-notify") == 0
        process.send_signal(signal.SIGTERM)
        await process.wait()
    async with running(dsn, kafka.bootstrap, "api") as (_, api), running(dsn, kafka.bootstrap, "relay") as (_, relay):
        await until_ready(api)
        await eventually(lambda: owner(relay), within=30)
        assert "relayStatus" not in (await api.get("/readyz")).json()
        assert await connections(dsn, "ftgo-listen") == 1
        await api.post("/notes")

        async def notified_and_published() -> None:
            assert await connections(dsn, "ftgo-notify") == 1
            assert await outbox(dsn) == 0

        await eventually(notified_and_published, within=30)


@pytest.mark.slow
async def test_a_service_with_log_tailing(dsn, kafka: Kafka, monkeypatch):
    monkeypatch.setenv("FTGO_RELAY", "log-tailing")
    await ensure_topics(kafka.bootstrap, ["small.events"], PARTITIONS)
    async with running(dsn, kafka.bootstrap) as (process, http):
        await until_ready(http)
        await eventually(lambda: owner(http), within=30)
        await eventually(lambda: streaming(dsn), within=30)
        noted = (await http.post("/notes")).json()["messageId"]
        await eventually(lambda: handled(dsn, noted), within=30)
        metrics = (await http.get("/metrics")).text
        assert "ftgo_relay_shards 64.0" in metrics
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert await outbox(dsn) == 0
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT pg_drop_replication_slot('ftgo_small_relay_0_of_1')")
    await connection.close()


async def streaming(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        slot = "SELECT active FROM pg_replication_slots WHERE slot_name = 'ftgo_small_relay_0_of_1'"
        assert await connection.fetchval(slot)
    finally:
        await connection.close()


async def test_a_relay_that_does_not_exist_ends_the_start_with_a_sentence(dsn, monkeypatch):
    monkeypatch.setenv("FTGO_RELAY", "carrier-pigeon")
    monkeypatch.setenv("FTGO_RELAY_SHARD", "2")
    monkeypatch.setenv("FTGO_RELAY_SHARDS", "2")
    process = await _process(dsn, NO_KAFKA, free_port())
    said = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert process.returncode == 2
    assert "FTGO_RELAY: Input should be 'polling' or 'log-tailing', not 'carrier-pigeon'" in said
    assert "FTGO_RELAY_SHARDS: Value error, relay 2 of 2: FTGO_RELAY_SHARD counts from 0" in said


async def handled(dsn: str, message_id: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM processed_messages WHERE message_id = $1", message_id)
    finally:
        await connection.close()


async def published(kafka: Kafka) -> int:
    """How many messages the topic has."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition("small.events", p) for p in range(PARTITIONS)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def test_a_part_that_fails_ends_the_process(dsn, monkeypatch):
    monkeypatch.setenv("FTGO_SMALL_FAIL", "yes")
    process = await _process(dsn, NO_KAFKA, free_port())
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"a part that fails" in said


async def test_a_taken_port_ends_the_process_with_a_sentence(dsn):
    async with running(dsn, NO_KAFKA) as (_, http):
        second = await _process(dsn, NO_KAFKA, http.base_url.port)
        said, _ = await asyncio.wait_for(second.communicate(), 30)
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1:{http.base_url.port}" in said.decode()
        assert (await http.get("/livez")).status_code == 200


async def test_a_migration_waits_for_the_database(dsn, postgres: Postgres):
    """Behind a door that closes the first connections at once, as a server does that is just starting."""
    refused = 0

    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        if refused < 2:
            refused += 1
            writer.close()
            return
        inner = await asyncio.open_connection("127.0.0.1", postgres.port)
        await asyncio.gather(pour(reader, inner[1]), pour(inner[0], writer))

    async def pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    async with await asyncio.start_server(door, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        process = await _process(dsn.replace(f":{postgres.port}/", f":{port}/"), NO_KAFKA, 1, "migrate")
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert refused == 2


@pytest.mark.embedded("its address must be known before it starts")
async def test_a_migration_waits_for_a_server_that_starts_later(dsn, postgres: Postgres):
    await asyncio.to_thread(postgres.stop)
    process = await _process(dsn, NO_KAFKA, 1, "migrate")
    try:
        first = await process.stdout.readline()
        assert first.decode() == (
            f"Waiting for PostgreSQL at 127.0.0.1:{postgres.port} (0 of 120 s): connection refused\n"
        )
    finally:
        await postgres.start()
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def test_a_migration_tells_what_waiting_does_not_cure(dsn, postgres: Postgres):
    """At once: a wrong password, a database that is not there, a right that is missing."""
    await postgres.create_services(["other"])
    other = postgres.dsn("ftgo_other", "ftgo_small")
    cases = {
        postgres.dsn("ftgo_small", "ftgo_small", "wrong"): 'password authentication failed for user "ftgo_small"',
        postgres.dsn("ftgo_smell", "ftgo_small"): 'database "ftgo_smell" does not exist',
        other: 'permission denied for database "ftgo_other"',
        postgres.service_dsn("other"): "permission denied for schema public",
    }
    for wrong, why in cases.items():
        process = await _process(wrong, NO_KAFKA, 1, "migrate")
        said = (await process.communicate())[0].decode()
        assert process.returncode == 1, said
        assert said.startswith(f"PostgreSQL at 127.0.0.1:{postgres.port} refuses: {why}"), said
        assert "FTGO_SMALL_DATABASE_URL" in said
        assert said.count("\n") == 1, said


async def test_a_migration_whose_server_never_comes_is_told_in_a_sentence(dsn, postgres: Postgres, monkeypatch):
    monkeypatch.setenv("FTGO_WAIT_SECONDS", "1")
    port = free_port()
    process = await _process(dsn.replace(f":{postgres.port}/", f":{port}/"), NO_KAFKA, 1, "migrate")
    said = (await process.communicate())[0].decode()
    assert process.returncode == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"PostgreSQL at 127.0.0.1:{port} was not there within 1 s: connection refused. ")
    assert "Traceback" not in said


@pytest.mark.embedded("their addresses must be known before they start")
async def test_a_service_outlives_a_start_before_its_servers(dsn, platform: Platform, kafka: Kafka):
    """It answers, is not ready, and becomes ready when they are there."""
    await ensure_topics(kafka.bootstrap, ["small.events"], PARTITIONS)
    await asyncio.to_thread(platform.postgres.stop)
    await asyncio.to_thread(platform.kafka.stop)
    async with AsyncExitStack() as stack:
        try:
            process, http = await stack.enter_async_context(running(dsn, kafka.bootstrap))
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert answer.json()["database"] != "ok"
        finally:
            await platform.start_postgres()
            await platform.start_kafka()
        await until_ready(http)
        assert process.returncode is None


async def test_a_service_outlives_a_start_before_its_names_are_known(dsn, postgres: Postgres):
    nowhere = dsn.replace(f"127.0.0.1:{postgres.port}", "postgres.invalid:5432")
    async with running(nowhere, "kafka.invalid:9092") as (process, http):

        async def tried() -> None:
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.json()["relay"]) == (503, "idle")

        await eventually(tried)
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
