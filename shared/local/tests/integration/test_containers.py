"""The platform in containers, where there is an engine."""

import json
import shutil
import subprocess
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from ftgo_local.containers import KAFKA_IMAGE, POSTGRES_IMAGE, ContainerPlatform
from ftgo_local.postgres import SETTINGS
from ftgo_messaging.transports.kafka.topics import ensure_topics


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


ready = shutil.which("docker") is not None and docker("image", "inspect", POSTGRES_IMAGE, KAFKA_IMAGE)
pytestmark = pytest.mark.skipif(not ready, reason="no Docker engine here that has the images")


def containers() -> set[str]:
    """The ids of those of testcontainers, running or not."""
    return set(docker("ps", "--all", "--quiet", "--filter", "label=org.testcontainers=true").split())


def published(containers: set[str]) -> set[tuple[str, int]]:
    """Addresses and ports as they were asked for; an engine may be set to loopback by itself, ours here is."""
    bindings = docker("inspect", "--format", "{{json .HostConfig.PortBindings}}", *containers).splitlines()
    asked = [one for line in bindings for port in json.loads(line).values() for one in port]
    return {(one["HostIp"], int(one["HostPort"])) for one in asked}


async def test_what_is_killed_keeps_its_data_and_what_is_stopped_is_gone(tmp_path: Path) -> None:
    before = containers()
    async with ContainerPlatform(tmp_path) as platform:
        ours = containers() - before
        assert published(ours) == {("127.0.0.1", platform.postgres.port), ("127.0.0.1", platform.kafka.port)}

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
    assert not ours & containers()
