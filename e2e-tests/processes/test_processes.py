"""Where api, worker and relay of every service are processes of their own, as on Kubernetes, the tour and the journeys
that read what the processes count pass as they do where a service is one process."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_local.kafka import Kafka
from ftgo_local.platform import Platform
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_local.services import SERVICES, Service, ftgo_services, service_environment
from ftgo_messaging.transports.kafka.topics import PARTITIONS, ensure_topics

PARTS = ("api", "worker", "relay")
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def deployment(
    postgres: Postgres, kafka: Kafka, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, str]]:
    """Three processes of each service, ready. Yields the environment that leads to them."""
    await ensure_topics(kafka.bootstrap, [c.name for c in ALL_CHANNELS], PARTITIONS)
    await postgres.create_services(SERVICES)
    processes: dict[str, list[Service]] = {}
    for spec in ftgo_services():
        processes[spec.name] = []
        for part in PARTS:
            module = f"ftgo_{spec.name}.entrypoints.{part}"
            environment = service_environment(
                spec.name, port := free_port(), postgres.service_dsn(spec.name), kafka.bootstrap
            )
            log = platform.state.logs / f"{spec.name}-{part}.log"
            run = replace(spec, run=(sys.executable, "-m", module))
            processes[spec.name].append(Service(run, port, environment, log, tmp_path_factory.mktemp(part)))
    every = [process for service in processes.values() for process in service]
    try:
        await asyncio.gather(*(service[0].migrate(postgres.owner_dsn(name)) for name, service in processes.items()))
        for process in every:
            await process.start()
        await asyncio.gather(*(process.wait_until_ready(180) for process in every))
        names = {"FTGO_KAFKA_BOOTSTRAP": kafka.bootstrap}
        for name, (api, *others) in processes.items():
            names[f"FTGO_{name.upper()}_URL"] = api.url
            names[f"FTGO_{name.upper()}_METRICS_URL"] = " ".join(process.url for process in (api, *others))
        yield names
    finally:
        await asyncio.gather(*(asyncio.to_thread(process.stop) for process in every))


async def _said(deployment: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", *arguments),
        cwd=ROOT,
        env={**os.environ, **deployment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_the_tour(deployment: dict[str, str]) -> None:
    code, said = await _said(deployment, "ftgo_local.scenes")
    assert code == 0, said
    assert said.count("As expected.") == 4, said
    assert said.count("Left out. It stops and starts processes") == 2, said


async def test_the_journeys_that_read_metrics(deployment: dict[str, str]) -> None:
    files = [f"e2e-tests/journeys/test_{name}.py" for name in ("defects", "forgeries")]
    code, said = await _said(deployment, "pytest", "-q", "-p", "no:cacheprovider", *files)
    assert code == 0, said
