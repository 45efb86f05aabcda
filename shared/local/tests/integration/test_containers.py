"""The platform in containers, where there is an engine."""

import shutil
import subprocess
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from ftgo_local.containers import KAFKA_IMAGE, POSTGRES_IMAGE, ContainerPlatform
from ftgo_local.postgres import SETTINGS
from ftgo_messaging.kafka.topics import ensure_topics


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


ready = shutil.which("docker") is not None and docker("image", "inspect", POSTGRES_IMAGE, KAFKA_IMAGE)
pytestmark = pytest.mark.skipif(not ready, reason="no Docker engine here that has the images")


def containers() -> dict[str, str]:
    """Those of testcontainers that run: id -> published ports."""
    listing = docker("ps", "--filter", "label=org.testcontainers=true", "--format", "{{.ID}} {{.Ports}}")
    return dict(line.split(" ", 1) for line in listing.splitlines())


async def test_what_is_killed_keeps_its_data_and_what_is_stopped_is_gone(tmp_path: Path) -> None:
    before = set(containers())
    async with ContainerPlatform(tmp_path) as platform:
        ours = {id_: ports for id_, ports in containers().items() if id_ not in before}
        addresses = [f"127.0.0.1:{server.port}->{server.port}/tcp" for server in (platform.postgres, platform.kafka)]
        published = [p for ports in ours.values() for p in ports.split(", ") if "->" in p]
        assert sorted(published) == sorted(addresses)

        dsn = (await platform.create_databases(["order"]))["order"]
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE committed AS SELECT 42 AS answer")
        for name in ("wal_level", "max_connections", "max_slot_wal_keep_size"):
            assert await connection.fetchval(f"SHOW {name}") == SETTINGS[name]
        await ensure_topics(platform.kafka.bootstrap, ["kept"], 3)
        platform.postgres.kill()
        platform.kafka.kill()
        assert platform.postgres.end == platform.kafka.end == "was killed by SIGKILL"
        assert platform.postgres.pid is None
        connection.terminate()

        await platform.start_postgres()
        await platform.start_kafka()
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SELECT answer FROM committed") == 42
        await connection.close()
        async with AIOKafkaConsumer("kept", bootstrap_servers=platform.kafka.bootstrap) as consumer:
            assert len(consumer.assignment()) == 3
        platform.postgres.stop()
        assert platform.postgres.end == "ended with exit code 0"
    assert not set(ours) & set(containers())
    everything = docker("ps", "--all", "--quiet").split()
    assert not set(ours) & set(everything)
