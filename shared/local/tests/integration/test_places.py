"""The platform in odd places and homes, started from a shell that has settings for other programs."""

import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from ftgo_local.platform import Platform
from ftgo_local.unprivileged import USER
from ftgo_messaging.transports.kafka.topics import ensure_topics

pytestmark = pytest.mark.embedded("it is what is tested")

ODD = "ö, x\\y 'q' \"d\" #1 $HOME 100% a=b;c&d (e) `f`"


@pytest.fixture(scope="module")
async def platform() -> AsyncIterator[Platform]:
    above = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    os.chmod(above, 0o755)  # noqa: S103 - not a folder of ours, then: the servers' user has to pass through
    foreign = {
        "PGSSLMODE": "require",
        "PGTARGETSESSIONATTRS": "read-only",
        "PGOPTIONS": "-c default_transaction_read_only=on",
        "KAFKA_LOG4J_OPTS": "-Dnonsense",
        "JAVA_TOOL_OPTIONS": "-Xmx1m",
        "LC_ALL": "C",
        "HOME": "/nonexistent",
    }
    # The jars are in the cache of the real home.
    cache = {"M2_REPO": os.environ.get("M2_REPO", str(Path.home() / ".m2" / "repository"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (foreign | cache).items():
            patch.setenv(name, value)
        async with Platform(above / ODD / "state") as platform:
            yield platform
    shutil.rmtree(above)


async def test_postgresql_below_a_folder_with_odd_letters(platform: Platform) -> None:
    dsns = await platform.create_databases(["order"])
    connection = await asyncpg.connect(dsns["order"], ssl=False, target_session_attrs="any")
    try:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    finally:
        await connection.close()
    platform.postgres.stop()
    await platform.start_postgres()
    connection = await asyncpg.connect(dsns["order"], ssl=False, target_session_attrs="any")
    try:
        assert await connection.fetchval("SELECT answer FROM kept") == 42
    finally:
        await connection.close()


async def test_kafka_below_a_folder_with_odd_letters(platform: Platform) -> None:
    bootstrap = platform.kafka.bootstrap
    await ensure_topics(bootstrap, ["kept"])
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait("kept", b"one", key=b"k")
    platform.kafka.stop()
    await platform.start_kafka()
    async with AIOKafkaConsumer("kept", bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        assert (await consumer.getone()).value == b"one"
    # Where they should be, and nowhere else.
    assert list((platform.kafka.directory / "data").glob("kept-*"))
    above = next(p for p in platform.state.path.parents if p.name == ODD).parent
    assert [path.name for path in above.iterdir()] == [ODD]
    assert not list(platform.kafka.directory.glob("data.incomplete.*"))


async def test_nobody_else_reads_data_logs_or_passwords(platform: Platform) -> None:
    state = platform.state.path
    passed = [state]
    assert stat.S_IMODE(state.stat().st_mode) == (0o710 if os.geteuid() == 0 else 0o700)
    while passed:
        for path in passed.pop().iterdir():
            mode = stat.S_IMODE(path.lstat().st_mode)
            assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
            # What is in a closed folder is closed, whatever its own mode.


@pytest.mark.skipif(os.geteuid() != 0, reason="started by root, that is")
async def test_neither_server_runs_as_root(platform: Platform) -> None:
    for unit in (platform.postgres, platform.kafka):
        assert unit.pid is not None
        process = psutil.Process(unit.pid)
        assert process.username() == USER
        assert process.gids().real == process.gids().effective != 0
        assert unit.directory.stat().st_uid == process.uids().real
        assert "nonsense" not in str(process.environ())
