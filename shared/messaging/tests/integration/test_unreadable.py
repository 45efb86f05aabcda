"""Records that Kafka's client cannot read, made by hand, through a real broker: kept or handled, and nobody stops."""

import asyncio
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.outbox import writer
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.kafka import KafkaTransport
from ftgo_messaging.transports.kafka.binding import to_kafka
from ftgo_messaging.transports.kafka.codecs import DECODERS, MOST_BYTES, TooMuch
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import Column, Identity, Integer, MetaData, Table, text

METADATA = MetaData()
messaging_tables(METADATA)
heard = Table("heard", METADATA, Column("position", Integer, Identity(), primary_key=True), Column("n", Integer))
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
ENCODERS = {"none": bytes, "gzip": gzip_encode, "snappy": snappy_encode, "lz4": lz4_encode, "zstd": zstd_encode}


class Said(DomainEvent, frozen=True, kw_only=True):
    n: int


# -- a broker's record batch, byte by byte ---------------------------------------------------------------------------


def number(value: int) -> bytes:
    """In zigzag form, of variable length."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def counted(data: bytes) -> bytes:
    return number(len(data)) + data


def record(place: int, value: bytes, headers: Iterable[tuple[bytes, bytes]], attributes: int = 0) -> bytes:
    """``place`` within its batch. The key is the subject "a"."""
    headers = list(headers)
    inside = bytes([attributes]) + number(0) + number(place) + counted(b"a") + counted(value) + number(len(headers))
    return counted(inside + b"".join(counted(name) + counted(header) for name, header in headers))


def said(place: int, n: int, *more: tuple[bytes, bytes], attributes: int = 0) -> bytes:
    """A record as it should be, and perhaps with more headers."""
    message = writer.event_message(Said(n=n), new_id(), "test", None, "a", n + 1)
    headers = [(name.encode(), value) for name, value in to_kafka(message.headers)]
    return record(place, message.body, [*headers, *more], attributes)


def batch(data: bytes, count: int, codec: str = "none") -> bytes:
    """Of records that are compressed already."""
    now = 1_700_000_000_000
    rest = struct.pack(">hiqqqhii", CODECS[codec], count - 1, now, now, -1, -1, -1, count) + data
    return struct.pack(">qiibI", 0, 4 + 1 + 4 + len(rest), -1, 2, calc_crc32c(rest)) + rest


NO_TEXT = (b"\xff\xfe", b"x")


# -- the scene -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["unreadable"]))["unreadable"]
    async with new_tables(dsn, METADATA) as engine:
        yield Transactions(engine, "unreadable")


class Scene:
    """A topic of one partition, a consumer of it, and what became of its records."""

    def __init__(self, transactions: Transactions, kafka: Kafka) -> None:
        self.kafka = kafka
        self.channel = Channel(f"unreadable.{new_id()}", Kind.EVENT)
        self.channel.carries("unreadable.Said")(Said)
        self.group = f"g-{new_id()}"
        self._transactions = transactions

    async def produce(self, *batches: bytes) -> None:
        """As they are, with acknowledgement."""
        client = AIOKafkaClient(bootstrap_servers=self.kafka.bootstrap)
        await client.bootstrap()
        try:
            client.set_topics([self.channel.name])

            async def led() -> Any:
                """A topic that was made a moment ago may not be known to the broker's metadata yet."""
                await client.force_metadata_update()
                leader = client.cluster.leader_for_partition(TopicPartition(self.channel.name, 0))
                assert leader not in {None, -1}
                return leader

            leader = await eventually(led)
            for each in batches:
                answer = await client.send(leader, ProduceRequest(None, -1, 5000, [(self.channel.name, [(0, each)])]))
                assert answer.topics[0][1][0][1] == 0, answer
        finally:
            await client.close()

    @asynccontextmanager
    async def reading(self, **options: Any) -> AsyncIterator[ChannelConsumer]:
        handlers = MessageHandlers("unreadable")

        @handlers.handle(Said)
        async def on_said(event: Said, uow: UnitOfWork) -> None:
            uow.append(heard, {"n": event.n})

        arguments = ([self.channel], handlers, self._transactions, KafkaTransport(self.kafka.bootstrap))
        consumer = ChannelConsumer(self.group, *arguments, **options)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def rows(self, sql: str) -> list[Any]:
        async with self._transactions.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(sql))]

    async def until_heard(self, *numbers: int) -> None:
        async def check() -> None:
            assert [n for (n,) in await self.rows("SELECT n FROM heard ORDER BY position")] == list(numbers)

        await eventually(check, within=40, every=0.1)

    async def until_committed(self, offset: int) -> None:
        """The group goes on there after a restart."""
        probe = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap, group_id=self.group, enable_auto_commit=False)
        await probe.start()

        async def check() -> None:
            assert await probe.committed(TopicPartition(self.channel.name, 0)) == offset

        try:
            await eventually(check, within=20, every=0.1)
        finally:
            await probe.stop()


@pytest.fixture
async def scene(transactions: Transactions, kafka: Kafka) -> Scene:
    scene = Scene(transactions, kafka)
    await ensure_topics(kafka.bootstrap, [scene.channel.name], partitions=1)
    return scene


# -- what the client lacks, or will not read -------------------------------------------------------------------------


async def test_every_codec_is_read(scene: Scene) -> None:
    batches = [batch(encode(said(0, n)), 1, codec) for n, (codec, encode) in enumerate(ENCODERS.items())]
    await scene.produce(*batches)
    async with scene.reading():
        await scene.until_heard(*range(len(ENCODERS)))
    assert await scene.rows("SELECT error FROM dead_letters") == []


async def test_a_codec_that_is_missing_is_named_and_nobody_waits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = batch(lz4_encode(said(0, 1) + said(1, 2)), 2, "lz4")
    monkeypatch.setattr("aiokafka.codec.has_lz4", lambda: False)
    monkeypatch.delitem(DECODERS, "lz4")
    await scene.produce(batch(said(0, 0), 1), poison, batch(said(0, 3), 1))
    async with scene.reading():
        await scene.until_heard(0, 3)
        await scene.until_committed(4)
    ((error, origin, body),) = await scene.rows("SELECT error, origin, body FROM dead_letters")
    assert "UnsupportedCodecError: Libraries for lz4 compression codec not found" in error
    assert f"{scene.channel.name}/0, offsets 1 to 2" in error
    assert origin == f"{scene.channel.name}/0@1"
    assert bytes(body).endswith(poison[61:])


async def test_what_the_client_cannot_read_costs_no_other_record_of_its_batch(scene: Scene) -> None:
    """A header name that is not UTF-8, and attributes that aiokafka takes for a longer number than they are."""
    odd = said(1, 1, NO_TEXT) + said(2, 2) + said(3, 3, attributes=0xFF) + record(4, b"{}", [NO_TEXT]) + said(5, 5)
    await scene.produce(batch(said(0, 0) + odd, 6), batch(said(0, 6), 1))
    async with scene.reading():
        await scene.until_heard(0, 1, 2, 3, 5, 6)
        await scene.until_committed(7)
    ((origin, body),) = await scene.rows("SELECT origin, body FROM dead_letters")
    assert (origin, bytes(body)) == (f"{scene.channel.name}/0@4", b"{}")


@pytest.mark.embedded("changes the broker's files")
async def test_bytes_that_have_changed_on_the_disk_are_kept(scene: Scene, kafka: Kafka) -> None:
    mark = b"to be changed"
    await scene.produce(batch(said(0, 0), 1), batch(said(0, 1, (b"x", mark)), 1), batch(said(0, 2), 1))
    (segment,) = kafka.directory.rglob(f"{scene.channel.name}-0/*.log")
    with segment.open("r+b") as file:
        file.seek(file.read().index(mark))
        file.write(b"is changed by")
    async with scene.reading():
        await scene.until_heard(0, 2)
        await scene.until_committed(3)
    ((error,),) = await scene.rows("SELECT error FROM dead_letters")
    assert "the checksum is not that of the bytes" in error
    assert f"{scene.channel.name}/0, offsets 1 to 1" in error


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_small_batch_that_unpacks_to_much_costs_no_memory(scene: Scene, codec: str) -> None:
    bomb = batch(ENCODERS[codec](record(0, bytes(8 * MOST_BYTES), [])), 1, codec)
    assert len(bomb) < 1_000_000  # the broker's limit
    await scene.produce(batch(said(0, 0), 1), bomb, batch(said(0, 2), 1))
    tracemalloc.start()
    try:
        async with scene.reading():
            await scene.until_heard(0, 2)
        assert tracemalloc.get_traced_memory()[1] < 6 * MOST_BYTES
    finally:
        tracemalloc.stop()
    ((error,),) = await scene.rows("SELECT error FROM dead_letters")
    assert f"TooMuch: more than {MOST_BYTES} bytes when unpacked" in error


@pytest.mark.parametrize(("codec", "cause"), [("none", "headers are too many"), ("zstd", "TooMuch: 400011 headers")])
async def test_a_record_of_400_000_headers_is_kept_without_them(scene: Scene, codec: str, cause: str) -> None:
    many = batch(ENCODERS[codec](said(0, 1, *[(b"", b"")] * 400_000)), 1, codec)
    await scene.produce(batch(said(0, 0), 1), many, batch(said(0, 2), 1))
    async with scene.reading():
        await scene.until_heard(0, 2)
        await scene.until_committed(3)
    ((error, headers),) = await scene.rows("SELECT error, CAST(headers AS text) FROM dead_letters")
    assert cause in error
    assert f"{scene.channel.name}/0" in error
    assert headers == "[]"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_decoder_returns_what_was_encoded_and_refuses_the_rest(codec: str) -> None:
    encode, decode = ENCODERS[codec], DECODERS[codec]
    for data in (b"", b"x", bytes(range(256)) * 1000, bytes(MOST_BYTES)):
        assert decode(encode(data)) == data
    with pytest.raises(TooMuch):
        decode(encode(bytes(MOST_BYTES + 1)))
    for junk in (
        b"\xff" * 50,
        encode(b"x" * 1000)[:-9],
        b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xfc",
    ):
        with pytest.raises((cramjam.DecompressionError, zlib.error, EOFError)):
            decode(junk)


# -- what is no message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["commit", "abort"])
async def test_the_markers_of_a_transactional_producer_are_no_lag(scene: Scene, ending: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=scene.kafka.bootstrap, transactional_id=f"foreign-{new_id()}")
    await producer.start()
    try:
        await producer.begin_transaction()
        message = writer.event_message(Said(n=0), new_id(), "test", None, "a", 1)
        headers = to_kafka(message.headers)
        await producer.send_and_wait(scene.channel.name, message.body, b"a", headers=headers)
        await (producer.commit_transaction() if ending == "commit" else producer.abort_transaction())
    finally:
        await producer.stop()
    async with scene.reading(patience=1) as consumer:
        await scene.until_heard(0)
        watching = asyncio.create_task(consumer.watch(every=0.1))
        await scene.until_committed(2)  # behind the marker
        steps = consumer._progress.steps

        async def progress() -> None:
            assert consumer._progress.steps > steps + 20  # for two seconds, twice the patience
            assert consumer.progress_ok

        await eventually(progress)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
