import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError
from ftgo_local.platform import Platform
from ftgo_messaging.transports.kafka.topics import ensure_topics

pytestmark = pytest.mark.embedded("it is what is tested")


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with Platform(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def execute(dsn: str, command: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(command)
    finally:
        await connection.close()


async def test_postgres_is_durable_and_can_be_tailed(platform: Platform) -> None:
    dsn = platform.postgres.dsn()
    expected = {"fsync": "on", "synchronous_commit": "on", "wal_level": "logical", "listen_addresses": "127.0.0.1"}
    for name, value in expected.items():
        assert await fetch(dsn, f"SHOW {name}") == value
    assert str(await fetch(dsn, "SHOW server_version")).startswith("18.")


async def test_a_role_reaches_its_own_database_only(platform: Platform) -> None:
    """What else the roles of the services may not is in services/tests/roles."""
    dsns = await platform.create_databases(["one", "two"])
    await execute(dsns["one"], "CREATE TABLE mine (id int)")
    for other in ("ftgo_two", "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
            await asyncpg.connect(platform.postgres.dsn(other, "ftgo_one"))
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(platform.postgres.dsn("ftgo_one", "ftgo_one", "guessed"))


async def test_creating_databases_again_changes_nothing(platform: Platform) -> None:
    dsns = await platform.create_databases(["again"])
    await execute(dsns["again"], "CREATE TABLE kept (id int)")
    assert await platform.create_databases(["again"]) == dsns
    assert await fetch(dsns["again"], "SELECT count(*) FROM kept") == 0


async def test_passwords_are_readable_by_their_owner_only(platform: Platform) -> None:
    files = list(platform.state.path.glob("*passwords*"))
    assert len(files) == 1
    assert files[0].stat().st_mode & 0o777 == 0o600


async def test_postgres_survives_kill_9(platform: Platform) -> None:
    await execute(platform.postgres.dsn(), "CREATE TABLE committed AS SELECT 42 AS answer")
    pid = platform.postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    platform.postgres.kill()
    assert platform.postgres.end == "was killed by SIGKILL"
    await platform.start_postgres()
    assert await fetch(platform.postgres.dsn(), "SELECT answer FROM committed") == 42


async def test_kafka_survives_kill_9(platform: Platform) -> None:
    bootstrap = platform.kafka.bootstrap
    await ensure_topics(bootstrap, ["survivors"])
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait("survivors", b"one", key=b"k")
    platform.kafka.kill()
    assert platform.kafka.end == "was killed by SIGKILL"
    await platform.start_kafka()
    async with AIOKafkaConsumer("survivors", bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        assert len(consumer.partitions_for_topic("survivors")) == 12
        assert (await consumer.getone()).value == b"one"


async def test_kafka_creates_no_topic_by_itself(platform: Platform) -> None:
    async with AIOKafkaProducer(bootstrap_servers=platform.kafka.bootstrap, request_timeout_ms=500) as producer:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.send_and_wait("misspelt.topic", b"lost?")
    admin = AIOKafkaAdminClient(bootstrap_servers=platform.kafka.bootstrap)
    await admin.start()
    try:
        assert "misspelt.topic" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_a_half_written_data_directory_is_set_aside(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    for directory in (platform.postgres.directory, platform.kafka.directory):
        (directory / "data").mkdir(parents=True)
        (directory / "data" / "half").write_text("written")
    await platform.start_postgres()
    await platform.start_kafka()
    platform.stop()
    for directory in (platform.postgres.directory, platform.kafka.directory):
        assert len(list(directory.glob("data.incomplete.*/half"))) == 1
    platform.state.delete()


async def test_a_stale_pid_file_of_postgres_does_not_stop_it(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    await platform.start_postgres()
    platform.stop()
    # PostgreSQL itself would refuse: a process with this pid, ours, is alive.
    stale = platform.postgres.directory / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{stale.parent}\n0\n{platform.postgres.port}\n\n127.0.0.1\n0 0\nready\n")
    await platform.start_postgres()
    platform.stop()
    platform.state.delete()
