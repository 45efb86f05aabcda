"""All partitions full of the largest records that a broker takes: a real service works them off within the memory of
its container."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_contracts.kitchen.events import RestaurantCreated
from ftgo_local.kafka import Kafka
from ftgo_local.platform import Platform
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_local.services import service_environment
from ftgo_messaging import new_id
from ftgo_messaging.outbox import writer
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.kafka.codecs import MOST_BYTES
from ftgo_messaging.transports.kafka.topics import PARTITIONS, ensure_topics
from ftgo_order.bootstrap import build
from ftgo_order.settings import OrderSettings
from ftgo_service_kit.migrations import migrate

pytestmark = pytest.mark.embedded("reads the memory of the service's process")

CONTAINER = 184 * 1024
"""kB: ``mem_limit`` of a service in docker-compose.yml."""

PLAIN, PACKED = 1_000_000, MOST_BYTES - 1000
"""Of a record: as much as a broker takes, and as much as is unpacked."""

EACH = 2
"""Records of a partition. The order service reads 60 partitions."""

CODECS = {"none": 0, "gzip": 1, "zstd": 4}


@pytest.fixture(scope="module")
async def full() -> AsyncIterator[Platform]:
    """A platform of its own: with what is filled here, the services of other tests would be busy."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    platform = Platform(path)
    await platform.start_postgres()
    await platform.start_kafka()
    yield platform
    platform.stop()
    shutil.rmtree(path, ignore_errors=True)


def record(codec: str, key: bytes, value: bytes, headers: Iterable[tuple[str, bytes | None]] = ()) -> bytes:
    """A batch of one record, as a producer sends it."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 2**30)
    builder.append(0, round(time.time() * 1000), key, value, list(headers))
    return bytes(builder.build())


def message(codec: str, name: str) -> bytes:
    """On the channel of restaurants it takes effect; on every other it is of no type that belongs there."""
    about = new_id()
    event = RestaurantCreated(restaurant_id=about, name=name, menu_items=())
    sent = writer.event_message(event, new_id(), "test", None, about, 1)
    return record(codec, sent.key.encode(), sent.body, ((k, v.encode()) for k, v in sent.headers.items()))


ONE: tuple[tuple[str, bytes | None], ...] = (("", None),)
"""The smallest header: two bytes."""

LARGE: Mapping[str, Callable[[], bytes]] = {
    "noise": lambda: record("none", b"a", os.urandom(PLAIN)),
    "packed noise": lambda: record("zstd", b"a", bytes(PACKED)),
    "many headers": cache(lambda: record("none", b"a", b"", ONE * (PLAIN // 2))),
    "packed many headers": cache(lambda: record("zstd", b"a", b"", ONE * (PACKED // 2))),
    "headers that grow": lambda: record("zstd", b"a", b"", (("x", bytes(PACKED)),)),
    "messages": lambda: message("none", os.urandom((PLAIN - 1000) // 2).hex()),
    "packed messages": lambda: message("gzip", "x" * PACKED),
}


async def fill(kafka: Kafka, partitions: Sequence[TopicPartition], make: Callable[[], bytes]) -> None:
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    client.set_topics([partition.topic for partition in partitions])

    async def put(partition: TopicPartition) -> None:
        """A topic that was made a moment ago may have no leader yet."""
        request = ProduceRequest(None, -1, 30_000, [(partition.topic, [(partition.partition, make())])])
        try:
            answer = await client.send(client.cluster.leader_for_partition(partition), request)
            assert answer.topics[0][1][0][1] == 0, answer
        except (AssertionError, KafkaError) as error:
            await client.force_metadata_update()
            raise AssertionError from error

    try:
        for partition in partitions:
            for _ in range(EACH):
                await eventually(partial(put, partition), within=30, every=0.1)
    finally:
        await client.close()


@asynccontextmanager
async def running(postgres: Postgres, kafka: Kafka) -> AsyncIterator[int]:
    environment = service_environment("order", free_port(), postgres.service_dsn("order"), kafka.bootstrap)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "ftgo_order.entrypoints.service"),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


def most_memory(pid: int) -> int:
    """kB that were resident at the most, since its start."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise AssertionError("the process is gone")


async def read_to(admin: AIOKafkaAdminClient, groups: Sequence[str]) -> int:
    """The sum of their committed offsets."""
    try:
        committed = [await admin.list_consumer_group_offsets(group) for group in groups]
    except KafkaError as error:
        raise AssertionError from error
    return sum(max(0, each.offset) for of_group in committed for each in of_group.values())


async def kept(postgres: Postgres) -> int:
    """Dead letters, and restaurants that were heard of."""
    connection = await asyncpg.connect(postgres.service_dsn("order"))
    try:
        count = "SELECT (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM restaurant_replicas)"
        return int(await connection.fetchval(count))
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", LARGE)
async def test_the_largest_records_in_all_partitions_fit_into_the_container(full: Platform, kind: str) -> None:
    postgres, kafka = full.postgres, full.kafka
    await postgres.create_services(["order"])
    settings = OrderSettings(
        database_url=postgres.service_dsn("order"),
        migration_database_url=postgres.owner_dsn("order"),
        FTGO_KAFKA_BOOTSTRAP=kafka.bootstrap,
    )
    await asyncio.to_thread(migrate, "ftgo_order", settings)
    await ensure_topics(kafka.bootstrap, [channel.name for channel in ALL_CHANNELS])
    consumers = build(settings).consumers
    groups = [consumer.name for consumer in consumers]
    topics = [topic for consumer in consumers for topic in consumer.channels]
    partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
    filled = [each for each in partitions if each.partition < 2] if "headers" in kind else partitions  # they take long
    await fill(kafka, filled, LARGE[kind])
    before = await kept(postgres)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        async with running(postgres, kafka) as pid, AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap) as probe:
            ends = await probe.end_offsets(partitions)

            async def all_read() -> None:
                assert await read_to(admin, groups) == sum(ends.values())

            await eventually(all_read, within=200, every=0.5)
            assert most_memory(pid) < CONTAINER
    finally:
        await admin.close()
    assert await kept(postgres) - before == EACH * len(filled)
