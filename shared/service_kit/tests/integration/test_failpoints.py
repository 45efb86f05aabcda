"""Every failpoint, made to fail in every way, one at a time, in a real process: nothing is lost, nothing is done twice.

Each case has a process, a database and topics of its own; a few run side by side. The process is fed with trips until
the failpoint has fired. One that has died is started again, without a failpoint, as a supervisor would. Then all trips
must end, and the books must be right.
"""

import asyncio
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import IO

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging import messaging_tables, new_id
from ftgo_messaging.runtime.failpoints import EXIT_CODE, POINTS
from ftgo_messaging.sagas.instance import saga_instances_table
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.kafka.topics import ensure_topics
from sqlalchemy import Column, MetaData, Table, Text, Uuid
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

HERE = Path(__file__).parent
ACTIONS = {"exit": "exit", "raise": "raise", "pause": "pause:1.5"}
SIDE_BY_SIDE = 5
PARTITIONS = 2
CASES = [(point, action) for point in POINTS for action in ACTIONS]

Outcomes = dict[tuple[str, str], BaseException | None]

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


class Process:
    """The trip service, and a supervisor that starts it again without its failpoint."""

    def __init__(self, case: str, dsn: str, bootstrap: str, failpoint: str, log: IO[bytes]) -> None:
        self.port = free_port()
        self.ends: list[int] = []
        self._log = log
        self._failpoint = failpoint
        self._environment = {
            **os.environ,
            "FTGO_TRIP_CASE": case,
            "FTGO_TRIP_PORT": str(self.port),
            "FTGO_TRIP_DATABASE_URL": dsn,
            "FTGO_TRIP_INSTANCE": case,
            "FTGO_KAFKA_BOOTSTRAP": bootstrap,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    @property
    def fired(self) -> bool:
        return f"failpoint {self._failpoint.partition('=')[0]}: " in self.said

    async def supervise(self) -> None:
        """Until cancelled; then it is killed."""
        environment = {**self._environment, "FTGO_FAILPOINT": self._failpoint}
        try:
            while len(self.ends) < 3:
                command = [sys.executable, "-m", "trip_service"]
                self._process = await asyncio.create_subprocess_exec(
                    *command, cwd=HERE, env=environment, stdout=self._log, stderr=self._log
                )
                self.ends.append(await self._process.wait())
                environment = self._environment
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()


async def put(http: httpx.AsyncClient, trip: str) -> None:
    """Ask until the trip is accepted: what fails without an answer may have happened, and is asked for again."""
    async with asyncio.timeout(120):
        while True:
            try:
                if (await http.put(f"/trips/{trip}")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def feed(process: Process, http: httpx.AsyncClient) -> list[str]:
    """Ten trips at once, again and again until the failpoint has fired; and ten more."""
    trips: list[str] = []
    for _ in range(60):
        fired = process.fired
        batch = [new_id() for _ in range(10)]
        await asyncio.gather(*(put(http, trip) for trip in batch))
        trips += batch
        if fired:
            return trips
    raise AssertionError(f"it never fired:\n{process.said}")


async def create_tables(dsn: str) -> None:
    metadata = MetaData()
    messaging_tables(metadata)
    saga_instances_table(metadata)
    Table("trips", metadata, Column("id", Uuid, primary_key=True), Column("state", Text))
    Table("effects", metadata, Column("trip", Uuid), Column("command", Text))
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


async def ids_on(bootstrap: str, topic: str) -> set[str]:
    """Every message id of a topic, read from its beginning by a witness of no group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        ids: set[str] = set()
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                ids |= {dict(r.headers)["ce_id"].decode() for r in records}
        return ids
    finally:
        await consumer.stop()


async def check_books(dsn: str, bootstrap: str, case: str, trips: list[str]) -> None:
    database = await asyncpg.connect(dsn)
    try:

        async def settled() -> None:
            assert await database.fetchval("SELECT count(*) FROM saga_instances WHERE NOT finished") == 0
            assert await database.fetchval("SELECT count(*) FROM outbox") == 0

        await eventually(settled, within=60, every=0.1)
        states = {str(r["id"]): r["state"] for r in await database.fetch("SELECT id, state FROM trips")}
        assert states == dict.fromkeys(trips, "DONE")
        assert await database.fetchval("SELECT count(*) FROM saga_instances WHERE state = 'COMPLETED'") == len(trips)
        effects = Counter((str(r["trip"]), r["command"]) for r in await database.fetch("SELECT * FROM effects"))
        assert effects == {(trip, command): 1 for trip in trips for command in ("Book", "Pay")}
        assert await database.fetch("SELECT error FROM dead_letters") == []
        handled = {}
        for row in await database.fetch("SELECT consumer, message_id FROM processed_messages"):
            handled.setdefault(row["consumer"], set()).add(str(row["message_id"]))
        assert handled == {
            f"{case}.participant": await ids_on(bootstrap, f"{case}.commands"),
            f"{case}.sagas": await ids_on(bootstrap, f"{case}.replies"),
        }
        assert {consumer: len(ids) for consumer, ids in handled.items()} == dict.fromkeys(handled, 2 * len(trips))
    finally:
        await database.close()


async def run_case(case: str, point: str, action: str, dsn: str, bootstrap: str) -> None:
    await create_tables(dsn)
    with tempfile.NamedTemporaryFile(prefix=f"ftgo-{case}-") as log:
        # The second time: then there is something in every table, and the first of everything has gone well.
        process = Process(case, dsn, bootstrap, f"{point}={ACTIONS[action]}@2", log)
        supervisor = asyncio.create_task(process.supervise())
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{process.port}", timeout=20) as http:
                trips = await feed(process, http)
                await check_books(dsn, bootstrap, case, trips)
            assert process.ends == ([EXIT_CODE] if action == "exit" else []), process.said
        except Exception as error:
            error.add_note(process.said[-8000:])
            raise
        finally:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)


@pytest.fixture(scope="module")
async def outcomes(request: pytest.FixtureRequest, postgres: Postgres, kafka: Kafka) -> Outcomes:
    """How each case of this run (perhaps chosen by -k) ended: None, or what was wrong."""
    wanted = {item.name for item in request.session.items}
    cases = [(point, action) for point, action in CASES if any(f"[{point}-{action}]" in name for name in wanted)]
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    names = [f"case{number}" for number in range(len(cases))]
    dsns = await postgres.create_service_databases(names)
    topics = [f"{name}.{what}" for name in names for what in ("commands", "replies")]
    await ensure_topics(kafka.bootstrap, topics, PARTITIONS)

    async def one(name: str, point: str, action: str) -> None:
        async with room:
            await run_case(name, point, action, dsns[name], kafka.bootstrap)

    ends = await asyncio.gather(*(one(n, *c) for n, c in zip(names, cases, strict=True)), return_exceptions=True)
    return dict(zip(cases, ends, strict=True))


@pytest.mark.parametrize(("point", "action"), CASES)
def test_a_single_fault_loses_nothing_and_does_nothing_twice(outcomes, point: str, action: str) -> None:
    error = outcomes[point, action]
    if error is not None:
        raise error
