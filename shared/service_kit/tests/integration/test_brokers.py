"""A process follows its file from one broker to another while clients write: real Kafka, real NATS, real PostgreSQL."""

import asyncio
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from ftgo_local.brokers.nats import Nats
from ftgo_local.kafka import Kafka
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging import Channel, Kind, TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.lanes import LANES

HERE = Path(__file__).parent
CHANNEL = Channel("small.events", Kind.EVENT)
READERS = {CHANNEL.name: ["small"]}
NUMBERS = itertools.count(1)


class World:
    """A database, two brokers, and the file that names them."""

    def __init__(self, dsn: str, kafka: str, nats: str, file: Path) -> None:
        self.dsn, self.kafka, self.nats, self.file = dsn, kafka, nats, file
        self.noted: list[str] = []

    def names(self, generation: int, send: str, *read: str) -> None:
        self.replace(json.dumps({"generation": generation, "send": send, "read": read}))

    def replace(self, content: str) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(content)
        beside.rename(self.file)

    async def process(self, *arguments: str, port: int = 1) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "FTGO_SMALL_DATABASE_URL": self.dsn,
            "FTGO_SMALL_PORT": str(port),
            "FTGO_BROKER_FILE": str(self.file),
        }
        environment.pop("FTGO_KAFKA_BOOTSTRAP", None)
        command = [sys.executable, "-m", "small_service", *arguments]
        return await asyncio.create_subprocess_exec(
            *command, cwd=HERE, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )

    @asynccontextmanager
    async def running(self, *parts: str) -> AsyncIterator["Small"]:
        port = free_port()
        process = await self.process(*parts, port=port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            small = Small(self, process, http)
            try:
                await small.ready()
                yield small
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def handled(self) -> None:
        """Everything that was noted, and nothing is left in the outbox."""
        connection = await asyncpg.connect(self.dsn)
        try:
            ids = "SELECT count(*) FROM processed_messages WHERE message_id = ANY(CAST($1 AS uuid[]))"

            async def all_of_it() -> None:
                assert await connection.fetchval(ids, self.noted) == len(self.noted)
                assert await connection.fetchval("SELECT count(*) FROM outbox") == 0

            await eventually(all_of_it, within=40)
        finally:
            await connection.close()


class Small:
    def __init__(self, world: World, process: asyncio.subprocess.Process, http: httpx.AsyncClient) -> None:
        self.world, self.pid, self.http = world, process.pid, http
        self._process = process
        # Read as it comes: a pipe that is full would stop the process.
        self._said = asyncio.create_task(self._read())

    async def _read(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get("/readyz")).json()
        return found

    async def ready(self) -> None:
        async def check() -> None:
            try:
                assert (await self.http.get("/readyz")).json()["ready"] is True
            except httpx.TransportError as error:
                raise AssertionError from error

        await eventually(check, within=40)

    async def broker(self, **expected: object) -> None:
        async def check() -> None:
            found = (await self.state())["broker"]
            assert {name: found[name] for name in expected} == expected

        await eventually(check, within=40)

    async def note(self, count: int = 1) -> None:
        for _ in range(count):
            answer = await self.http.post("/notes")
            assert answer.status_code == 201
            self.world.noted.append(answer.json()["messageId"])

    async def end(self) -> str:
        self._process.send_signal(signal.SIGTERM)
        said = await self._said
        assert await self._process.wait() == 0, said
        return said


@pytest.fixture(scope="module")
async def nats() -> AsyncIterator[Nats]:
    folder = Path(tempfile.mkdtemp(prefix="ftgo-move-"))
    server = Nats(folder / "nats", free_port())
    await server.start()
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def world(postgres: Postgres, kafka: Kafka, nats: Nats, tmp_path: Path) -> World:
    # Of each test its own: the generation of an earlier one would be a newer one.
    name = f"brokers_{next(NUMBERS)}"
    dsn = (await postgres.create_service_databases([name]))[name]
    world = World(dsn, f"kafka://{kafka.bootstrap}", nats.url, tmp_path / "brokers.json")
    for url in (world.kafka, world.nats):
        await transport_at(url).declare([CHANNEL], READERS)
    world.names(1, world.kafka)
    migration = await world.process("migrate")
    said, _ = await migration.communicate()
    assert migration.returncode == 0, said.decode()
    return world


async def unread(url: str) -> int | None:
    try:
        found = await transport_at(url).unread(READERS)
    except TransientError:  # a Kafka that has never had a group takes a moment
        return None
    return None if None in found.values() else sum(count or 0 for count in found.values())


async def test_a_process_moves_while_clients_write(world: World) -> None:
    async with world.running() as small:
        await small.broker(sends="kafka", generation=1, reads=["kafka"], unmoved=0)
        await small.note(5)
        await world.handled()
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                await small.note()

        writing = asyncio.create_task(write())
        world.names(2, world.nats, world.kafka)
        await small.broker(sends="nats", generation=2, reads=["nats", "kafka"], unmoved=0)
        state = await small.state()
        assert set(state["consumers"].values()) == {"ok"}
        assert [name.partition("-")[0] for name in sorted(state["consumers"])] == ["small", "small@kafka"]
        assert state["ready"] is True
        world.names(3, world.nats)
        await small.broker(sends="nats", generation=3, reads=["nats"], unmoved=0)

        async def alone() -> None:
            assert set((await small.state())["consumers"]) == {"small"}

        await eventually(alone, within=20)
        stop.set()
        await writing
        await small.note(5)
        await world.handled()
        assert await unread(world.kafka) == 0
        said = await small.end()
    assert "part_not_stopped" not in said
    assert "Traceback" not in said


async def test_what_cannot_be_followed_is_told_once_and_the_old_stays(world: World) -> None:
    async with world.running() as small:
        world.replace("{")
        await asyncio.sleep(1.5)  # it has looked twice
        world.names(1, world.nats)
        await asyncio.sleep(1.5)
        await small.broker(sends="kafka", generation=1)
        await small.note()
        await world.handled()
        world.names(2, world.nats, world.kafka)
        await small.broker(sends="nats", generation=2, unmoved=0)
        await small.note()
        await world.handled()
        said = await small.end()
    told = [json.loads(line)["why"] for line in said.splitlines() if "broker_file.not_followed" in line]
    assert told == [
        f"{world.file} cannot be read (no JSON)",
        f"{world.file} has changed, and its generation has not grown",
    ]


async def test_parts_of_a_service_follow_each_its_part(world: World) -> None:
    async with (
        world.running("api") as api,
        world.running("worker") as worker,
        world.running("relay") as relay,
        world.running("relay") as standby,
    ):
        await api.note(3)
        await world.handled()
        world.names(2, world.nats, world.kafka)
        for small in (api, worker):
            await small.broker(sends="nats", generation=2, unmoved=None)
        for small in (relay, standby):  # before it has looked, nothing is unmoved either
            await small.broker(sends="nats", generation=2)

        async def moved() -> None:
            found = [(await small.state())["broker"]["unmoved"] for small in (relay, standby)]
            assert sorted(found, key=str) == [0, None]

        await eventually(moved, within=40)
        assert set((await relay.state())["consumers"]) == set()
        await api.note(3)
        await world.handled()


async def test_a_kill_in_the_middle_is_continued_by_the_file(world: World) -> None:
    """The old broker's messages are not read meanwhile: what is written waits, whoever is killed. Five are in
    five lanes at most, and the others are free."""
    # An earlier test's consumer may have ended between its commit and telling Kafka so.
    before = await unread(world.kafka) or 0
    async with world.running("api", "relay") as small:
        await small.note(5)

        async def published() -> None:
            assert await unread(world.kafka) == before + 5

        await eventually(published, within=40)
        world.names(2, world.nats, world.kafka)

        async def waits() -> None:
            assert 0 < (await small.state())["broker"]["unmoved"] < LANES

        await eventually(waits, within=40)
        await small.note(5)
        os.kill(small.pid, signal.SIGKILL)
    async with world.running("api", "relay") as small:
        await eventually(lambda: waits_still(small), within=40)
        assert await unread(world.kafka) == before + 5
        async with world.running("worker"):
            await small.broker(unmoved=0)
            await world.handled()
        assert await unread(world.kafka) == 0


async def waits_still(small: Small) -> None:
    """As soon as the lease of the process that was killed is over; before, it has nothing to move."""
    unmoved = (await small.state())["broker"]["unmoved"]
    assert unmoved is not None
    assert 0 < unmoved < LANES
