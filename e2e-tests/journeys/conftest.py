"""The system under test: a private copy of the whole platform, or the services that the environment names."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_local.deployment import until_ready
from ftgo_local.errors import PlatformError
from ftgo_local.scenes.control import Control
from ftgo_local.scenes.records import Topic
from ftgo_local.scenes.stage import Stage
from ftgo_local.scenes.tap import Tap, Topics
from ftgo_local.state import StateDirectory
from ftgo_messaging.transports import transport_at

PORT_OFFSET = os.environ.get("FTGO_JOURNEYS_PORT_OFFSET", "500")


@pytest.fixture(scope="session")
def platform_control() -> Iterator[Control | None]:
    """Hands on a copy that `ftgo up` has started for this run; None when FTGO_ORDER_URL names a running system."""
    if "FTGO_ORDER_URL" in os.environ:
        yield None
        return
    path = Path(tempfile.mkdtemp(prefix="ftgo-journeys-"))
    environment = {**os.environ, "FTGO_STATE_DIR": str(path), "FTGO_PORT_OFFSET": PORT_OFFSET}

    def ftgo(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "ftgo_local", *arguments], env=environment, check=True)

    try:
        ftgo("up", "--detach")
        yield Control(StateDirectory(path))
    finally:
        ftgo("reset", "--yes")
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
async def stage(platform_control: Control | None) -> AsyncIterator[Stage]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(timeout=40, trust_env=False, limits=limits) as client:
        if platform_control is not None:
            yield platform_control.stage(client)
            return
        stage = Stage.from_environment(client)
        try:
            await until_ready(client, vars(stage.urls), stage.broker)
        except PlatformError as error:
            pytest.exit(str(error), returncode=1)  # once, not for every test
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    if stage.control is None:
        pytest.skip("needs a platform whose processes may be stopped")
    return stage.control


@pytest.fixture
def kafka(stage: Stage) -> str:
    if stage.broker is None:
        pytest.skip("needs FTGO_BROKER_URL, or FTGO_KAFKA_BOOTSTRAP")
    if stage.kafka is None:
        pytest.skip("needs Kafka: it reads and writes Kafka's own records")
    return stage.kafka


@pytest.fixture
async def topics(stage: Stage) -> AsyncIterator[Topics]:
    """Channels from now on, by their names: what is sent there can be found, and anything can be put there."""
    if stage.broker is None:
        pytest.skip("needs FTGO_BROKER_URL, or FTGO_KAFKA_BOOTSTRAP")
    broker, kafka, transport, taps = stage.broker, stage.kafka, transport_at(stage.broker), list[Tap]()

    async def marked(name: str) -> Any:
        if kafka is not None:
            return await Topic(kafka, name).mark()
        taps.append(tap := Tap(transport, next(c for c in ALL_CHANNELS if c.name == name), broker))
        return await tap.mark()

    yield marked
    for tap in taps:
        await tap.close()
    await transport.close()
