"""Servers for all tests: a PostgreSQL and a Kafka of this run's own, on free ports, gone afterwards."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftgo_local.kafka import Kafka
from ftgo_local.platform import Platform
from ftgo_local.postgres import Postgres


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Below a folder that the unprivileged user of PostgreSQL can enter."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    os.chmod(path, 0o755)  # noqa: S103 - nobody has to pass through
    platform = Platform(path)
    yield platform
    platform.stop()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres(platform: Platform) -> Postgres:
    await platform.start_postgres()
    return platform.postgres


@pytest.fixture(scope="session")
async def kafka(platform: Platform) -> Kafka:
    await platform.start_kafka()
    return platform.kafka
