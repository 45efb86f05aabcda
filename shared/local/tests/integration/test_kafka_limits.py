"""Connections that send nothing, or half a request: they cost the broker a bounded part of its heap; others go on."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from ftgo_local.kafka import LIMITS, Kafka
from ftgo_local.platform import Platform
from ftgo_local.ports import free_port
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.kafka.topics import ensure_topics

pytestmark = pytest.mark.embedded("measures the broker's process")

IDLE_SECONDS = 3
CONNECTIONS = 60
LARGEST = int(LIMITS["socket.request.max.bytes"])
POOL = int(LIMITS["queued.max.request.bytes"])
TOPIC = "limits"


@pytest.fixture(scope="module")
async def broker(platform: Platform) -> AsyncIterator[Kafka]:
    """One of its own: as ours, but it sooner closes what is idle, and has room for fewer connections."""
    directory = Path(platform.kafka.directory).with_name("kafka-limits")
    kafka = Kafka(directory, free_port(), free_port())
    kafka.extra_settings = {
        "connections.max.idle.ms": str(IDLE_SECONDS * 1000),
        "max.connections.per.ip": str(CONNECTIONS),
    }
    await kafka.start()
    await ensure_topics(kafka.bootstrap, [TOPIC], partitions=1)
    yield kafka
    kafka.kill()
    assert "OutOfMemoryError" not in kafka.log.read_text()


@asynccontextmanager
async def connected(broker: Kafka, count: int, said: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections, on which this is said, and no more."""
    open_ = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", broker.port) for _ in range(count)))
    try:
        for _, writer in open_:
            writer.write(said)
        yield [reader for reader, _ in open_]
    finally:
        for _, writer in open_:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in open_), return_exceptions=True)


async def until_closed(readers: list[asyncio.StreamReader]) -> None:
    """By the broker."""
    async with asyncio.timeout(20):
        ends = await asyncio.gather(*(reader.read(1) for reader in readers), return_exceptions=True)
    assert all(end == b"" or isinstance(end, ConnectionError) for end in ends)


@asynccontextmanager
async def clients(broker: Kafka) -> AsyncIterator[tuple[AIOKafkaProducer, AIOKafkaConsumer]]:
    async with (
        AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True) as producer,
        AIOKafkaConsumer(TOPIC, bootstrap_servers=broker.bootstrap) as consumer,
    ):
        yield producer, consumer


async def a_message_arrives(producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
    async with asyncio.timeout(30):
        sent = await producer.send_and_wait(TOPIC, b"x" * 1000)
        assert (await consumer.getone()).offset == sent.offset


async def test_more_than_the_largest_request_is_refused_when_it_is_announced(broker: Kafka) -> None:
    async with clients(broker) as (producer, consumer):
        await a_message_arrives(producer, consumer)
        async with connected(broker, 6, struct.pack(">i", 100_000_000) + b"\0\0") as readers:
            await until_closed(readers)
            await a_message_arrives(producer, consumer)


async def test_requests_that_never_come_whole_cost_no_more_than_the_pool_and_end(broker: Kafka) -> None:
    """More than the pool has: nothing new is read then. Those who do not go on are closed, the others are served."""
    count = POOL // LARGEST + 10
    assert count < CONNECTIONS
    async with clients(broker) as (producer, consumer):
        await a_message_arrives(producer, consumer)
        process = psutil.Process(broker.pid)
        before = process.memory_info().rss
        async with connected(broker, count, struct.pack(">i", LARGEST - 1) + b"\0\0") as readers:
            await a_message_arrives(producer, consumer)
            await until_closed(readers)
            assert process.memory_info().rss - before < 2 * POOL
            await a_message_arrives(producer, consumer)


async def test_connections_that_are_idle_are_closed_and_no_address_has_too_many(broker: Kafka) -> None:
    async with clients(broker) as (producer, consumer):
        await a_message_arrives(producer, consumer)
        async with connected(broker, CONNECTIONS, b"") as readers:
            async with asyncio.timeout(IDLE_SECONDS * 0.8):
                refused, _ = await asyncio.wait(
                    [asyncio.create_task(reader.read(1)) for reader in readers], return_when=asyncio.FIRST_COMPLETED
                )
            assert refused
            await a_message_arrives(producer, consumer)
            await until_all_closed(broker, readers)
            await a_message_arrives(producer, consumer)


async def until_all_closed(broker: Kafka, readers: list[asyncio.StreamReader]) -> None:
    async def closed() -> None:
        assert all(reader.at_eof() for reader in readers)

    await eventually(closed, within=20)


async def test_a_client_whose_connection_was_closed_connects_again(broker: Kafka) -> None:
    def local_ports() -> set[int]:
        connections = psutil.Process().net_connections("tcp")
        return {c.laddr.port for c in connections if c.raddr and c.raddr.port == broker.port}

    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True) as producer:
        await producer.send_and_wait(TOPIC, b"x")
        first = local_ports()

        async def closed() -> None:
            assert not first & local_ports()

        await eventually(closed, within=20)
        async with asyncio.timeout(10):
            await producer.send_and_wait(TOPIC, b"y")
