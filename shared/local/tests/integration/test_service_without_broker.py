"""A real service whose broker refuses it, or is away, when it starts."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from ftgo_contracts.channels import ALL_CHANNELS, READERS
from ftgo_local.brokers.activemq import ActiveMQ
from ftgo_local.brokers.nats import Nats
from ftgo_local.brokers.rabbitmq import RabbitMQ
from ftgo_local.brokers.server import Server
from ftgo_local.brokers.valkey import Valkey
from ftgo_local.errors import PlatformError
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_local.services import Service, ftgo_services, service_environment
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports import transport_at

pytestmark = [pytest.mark.embedded("it starts servers and a service"), pytest.mark.timeout(180)]

SERVERS = [
    pytest.param("valkey", id="valkey"),
    pytest.param("nats", id="nats"),
    pytest.param("rabbitmq", id="rabbitmq", marks=pytest.mark.slow),
    pytest.param("activemq", id="activemq", marks=pytest.mark.slow),
]


def server(kind: str, folder: Path) -> Server:
    match kind:
        case "valkey":
            return Valkey(folder / kind, free_port(), password="right")
        case "activemq":  # without Spring it takes no passwords
            return ActiveMQ(folder / kind, free_port())
        case "nats":
            return Nats(folder / kind, free_port(), user="ftgo", password="right")
        case _:
            return RabbitMQ(folder / kind, free_port())


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=SERVERS)
async def broker(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Server]:
    """Not started yet."""
    made = server(request.param, folder)
    try:
        await made.prepare()
    except PlatformError as error:
        pytest.skip(str(error))
    yield made
    await asyncio.to_thread(made.stop)


@contextlib.asynccontextmanager
async def consumer_service(postgres: Postgres, url: str, folder: Path) -> AsyncIterator[Service]:
    (spec,) = (spec for spec in ftgo_services() if spec.name == "consumer")
    await postgres.create_services(["consumer"])
    environment = service_environment("consumer", port := free_port(), postgres.service_dsn("consumer"), url)
    service = Service(spec, port, environment, folder / "consumer.log", folder)
    await service.migrate(postgres.owner_dsn("consumer"))
    await service.start()
    try:
        yield service
    finally:
        await asyncio.to_thread(service.stop)


async def declare(broker: Server) -> None:
    transport = transport_at(broker.url)
    await transport.declare(ALL_CHANNELS, READERS)
    await transport.close()


def said(service: Service, word: str) -> list[str]:
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line["error"] for line in lines if word in line.get("error", "").lower()]


async def test_a_wrong_password_ends_it_with_a_sentence(broker: Server, postgres: Postgres, folder: Path) -> None:
    if isinstance(broker, ActiveMQ):
        pytest.skip("our own ActiveMQ asks for no password")
    await broker.start()
    await declare(broker)
    wrong = broker.url.replace("right", "wrong").replace("guest:guest", "guest:wrong")
    assert wrong != broker.url
    async with consumer_service(postgres, wrong, folder) as service:

        async def ended() -> None:
            assert service.pid is None

        await eventually(ended, within=60)
        assert service.end == "ended with exit code 1"
        assert said(service, "password"), service.log.read_text()[-3000:]
        assert "Traceback" not in service.log.read_text()
        assert "wrong" not in service.log.read_text()


async def test_a_broker_that_is_away_is_waited_for(broker: Server, postgres: Postgres, folder: Path) -> None:
    await broker.start()
    await declare(broker)
    await asyncio.to_thread(broker.stop)
    async with consumer_service(postgres, broker.url, folder) as service, httpx.AsyncClient(trust_env=False) as client:

        async def told() -> None:
            assert said(service, "is away"), service.log.read_text()[-3000:]

        await eventually(told, within=60)
        assert f"127.0.0.1:{broker.port}" in said(service, "is away")[0]
        assert (await client.get(f"{service.url}/readyz")).status_code == 503
        await broker.start()
        await service.wait_until_ready(60)
        assert "Traceback" not in service.log.read_text()
