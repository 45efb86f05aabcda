"""Kafka passes the conformance suite."""

import pytest
from ftgo_local.kafka import Kafka
from ftgo_messaging.testing.transport_suite import TransportSuite
from ftgo_messaging.transports.kafka import transport
from ftgo_messaging.transports.kafka.transport import TRAITS, KafkaTransport


class OnKafka:
    traits = TRAITS

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.url = f"kafka://{kafka.bootstrap}"

    def transport(self) -> KafkaTransport:
        return transport(self.url)

    async def kill(self) -> None:
        self._kafka.kill()

    async def start(self) -> None:
        await self._kafka.start(timeout=180)

    async def stop(self) -> None:
        self._kafka.stop()


@pytest.fixture
def subject(kafka: Kafka) -> OnKafka:
    return OnKafka(kafka)


@pytest.mark.embedded("its server is killed and started")
@pytest.mark.slow
@pytest.mark.brokers
class TestKafka(TransportSuite):
    pass
