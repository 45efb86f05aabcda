"""The SQS adapter on ElasticMQ, an emulation of the AWS API: what it shows is the adapter, and nothing of AWS itself."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from ftgo_local.brokers.elasticmq import ElasticMQ
from ftgo_local.ports import free_port
from ftgo_messaging.testing.transport_suite import OnServer, TransportSuite
from ftgo_messaging.transports.aws import transport

pytestmark = pytest.mark.slow


class Emulation(OnServer):
    """ElasticMQ holds everything in memory, and with its storage on it forgets the order: it is not to be killed."""

    def __init__(self, server: ElasticMQ) -> None:
        super().__init__(server, transport)
        self.traits = replace(self.traits, name="sqs, emulated by ElasticMQ,", persistent=False)
        self.kill = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ElasticMQ]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    server = ElasticMQ(path / "elasticmq", free_port())
    await server.start()
    yield server
    server.stop()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def subject(server: ElasticMQ) -> Emulation:
    return Emulation(server)


class TestSuite(TransportSuite):
    waiting = 20_000
