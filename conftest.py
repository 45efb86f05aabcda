"""Servers for all tests: a PostgreSQL and a Kafka of this run's own, on free ports, gone afterwards."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres, free_port


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that the unprivileged user of PostgreSQL can enter."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    os.chmod(path, 0o755)  # noqa: S103 - nobody has to pass through
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres(scratch: Path) -> AsyncIterator[Postgres]:
    server = Postgres(scratch / "postgres", free_port())
    await server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
async def kafka(scratch: Path) -> AsyncIterator[Kafka]:
    server = Kafka(scratch / "kafka", free_port(), free_port())
    await server.start()
    yield server
    server.stop()
