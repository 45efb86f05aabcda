"""RabbitMQ, a real one: the conformance suite, and what is RabbitMQ's own."""

import asyncio
import datetime
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiormq
import psutil
import pytest
from aiormq.abc import AbstractChannel
from ftgo_local.brokers import rabbitmq_packages
from ftgo_local.brokers.rabbitmq import RabbitMQ
from ftgo_local.errors import PlatformError
from ftgo_local.ports import free_port
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.judging import disorder, message, messages, missing
from ftgo_messaging.testing.suite.member_process import member_process, told
from ftgo_messaging.testing.suite.members import Member, Wire, lanes_of
from ftgo_messaging.testing.transport_suite import OnServer, Subject, TransportSuite
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Record, Sent
from ftgo_messaging.transports.rabbitmq import connection, subscription, transport
from ftgo_messaging.transports.rabbitmq.lane import PREFETCH
from pamqp.commands import Basic


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[RabbitMQ]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    server = RabbitMQ(path / "rabbitmq", free_port())
    try:
        await server.prepare()
    except PlatformError as absent:
        shutil.rmtree(path, ignore_errors=True)
        pytest.skip(f"no RabbitMQ here: {absent}")
    try:
        await server.start()
        yield server
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
async def subject(server: RabbitMQ) -> Subject:
    return OnServer(server, transport)


@pytest.fixture
async def wire(subject: Subject) -> AsyncIterator[Wire]:
    wire = Wire(subject)
    yield wire
    await wire.close()


@asynccontextmanager
async def amqp(server: RabbitMQ) -> AsyncIterator[AbstractChannel]:
    """Somebody else's client."""
    theirs = await aiormq.connect(server.url)
    try:
        yield await theirs.channel()
    finally:
        await theirs.close()


@pytest.mark.slow
@pytest.mark.brokers
class TestRabbitMQ(TransportSuite):
    """See ``ftgo_messaging.testing.transport_suite``."""


# -- publishing --------------------------------------------------------------------------------------------------------


def of_kind(kind: Kind, channel: Channel, key: str = "key") -> Message:
    return message(channel, key, 1, **{m.KIND: kind})


async def test_what_no_queue_takes_is_refused_but_for_events(wire: Wire) -> None:
    nobodys, somebodys = await wire.channel(kind=Kind.EVENT), await wire.channel("reader")
    reader = await wire.member("reader", somebodys)
    good = message(somebodys, "good", 1)
    twice = of_kind(Kind.COMMAND, nobodys)
    batch = [
        of_kind(Kind.REPLY, nobodys),
        twice,
        good,
        of_kind(Kind.EVENT, nobodys),
        twice,
        of_kind(Kind.COMMAND, nobodys, "none"),
    ]
    outcomes = await wire.publisher().publish(batch)
    refused = Sent.REFUSED
    assert list(outcomes) == [refused, refused, Sent.CONFIRMED, Sent.CONFIRMED, refused, refused]
    await wire.receive(reader, [good])


async def test_a_channel_that_vanishes_costs_the_others_nothing(wire: Wire, server: RabbitMQ) -> None:
    vanishes, stays = await wire.channel("reader"), await wire.channel("reader")
    publisher = wire.publisher()
    await wire.publish([message(vanishes, "a", 1), message(stays, "a", 1)], publisher)
    async with amqp(server) as other:
        await other.exchange_delete(vanishes.name)
    batch = [message(stays if n % 3 else vanishes, f"entity-{n}", n) for n in range(300)]
    outcomes = await publisher.publish(batch)
    assert list(outcomes) == [Sent.CONFIRMED if n % 3 else Sent.REFUSED for n in range(300)]
    reader = await wire.member("reader", stays)
    sent = [each for each in batch if each.channel == stays.name]
    await wire.receive(reader, sent)
    assert missing(sent, reader.log) == []


async def test_a_full_queue_refuses(wire: Wire, server: RabbitMQ) -> None:
    channel = await wire.channel(kind=Kind.EVENT)
    async with amqp(server) as other:
        full = {"x-max-length": 2, "x-overflow": "reject-publish"}
        await other.queue_declare(f"{channel.name}.full", durable=True, arguments=full)
        for lane in range(12):
            await other.queue_bind(f"{channel.name}.full", channel.name, str(lane))
        outcomes = await wire.publisher().publish(messages(channel, "entity", range(10)))
        assert set(outcomes[:2]) == {Sent.CONFIRMED}
        assert Sent.REFUSED in outcomes[2:]
        await other.queue_delete(f"{channel.name}.full")


async def test_what_amqp_has_no_room_for_is_refused(wire: Wire) -> None:
    channel = await wire.channel("reader")
    odd = [
        message(channel, "a", 1, **{"n" * 300: "a name of 300"}),
        message(channel, "a", 2, **{f"h{n}": "v" * 190 for n in range(1000)}),
        message(channel, "a", 3, bad="\ud800"),
        message(channel, "a", 4),
    ]
    assert list(await wire.publisher().publish(odd)) == [Sent.REFUSED] * 3 + [Sent.CONFIRMED]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("guest:guest", "guest:wrong"), "user guest.*password"),
        (lambda url: url + "nowhere", "virtual host nowhere.*add_vhost"),
    ],
    ids=["wrong password", "missing virtual host"],
)
async def test_who_may_not_connect_is_told_why(server: RabbitMQ, change: Any, says: str) -> None:
    channel = Channel("refused", Kind.EVENT)
    client = transport(change(server.url))
    with pytest.raises(BrokerRefuses, match=says):
        await client.declare([channel], {})
    with pytest.raises(BrokerRefuses, match=says):
        await client.subscription("reader", [channel]).open()
    with pytest.raises(BrokerRefuses, match=says):
        await client.publisher("p").publish([message(channel, "a", 1)])


@pytest.mark.parametrize("url", ["amqp://", "amqp://h?lanes=many", "amqp://h?lanes=0", "amqp://h:port/"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BrokerRefuses, match="address of RabbitMQ"):
        transport(url)


async def test_away() -> None:
    client = transport(f"rabbitmq://127.0.0.1:{free_port()}")
    channel = Channel("away", Kind.EVENT)
    for attempt in (
        client.declare([channel], {}),
        client.subscription("reader", [channel]).open(),
        client.subscription("reader", [channel]).take(1, 0.1),
        client.publisher("p").publish([message(channel, "a", 1)]),
    ):
        with pytest.raises(TransientError, match=r"RabbitMQ at .* is away"):
            await attempt


async def test_another_number_of_lanes_is_refused(wire: Wire, server: RabbitMQ) -> None:
    channel = await wire.channel("reader")
    for lanes in (6, 24):
        other = transport(f"{server.url}?lanes={lanes}")
        says = f"another number of lanes than {lanes}"
        with pytest.raises(BrokerRefuses, match=says):
            await other.declare([channel], {channel.name: ["reader"]})
        with pytest.raises(BrokerRefuses, match=says):
            await other.subscription("reader", [channel]).open()
        publisher = other.publisher("p")
        assert list(await publisher.publish([message(channel, "a", 1)])) == [Sent.REFUSED]
        await publisher.close()
    assert list(await wire.publisher().publish([message(channel, "a", 1)])) == [Sent.CONFIRMED]


async def test_a_queue_that_was_declared_otherwise_is_refused(server: RabbitMQ) -> None:
    channel = Channel(f"suite.{new_id()}", Kind.EVENT)
    async with amqp(server) as other:
        await other.queue_declare(f"{channel.name}.reader.3", durable=False)
        with pytest.raises(BrokerRefuses, match=rf"otherwise.*{channel.name}.reader.3.*Delete it"):
            await transport(server.url).declare([channel], {channel.name: ["reader"]})


# -- reading -----------------------------------------------------------------------------------------------------------


async def foreign(server: RabbitMQ, channel: Channel, lane: int, headers: Any, body: bytes = b"", **more: Any) -> None:
    async with amqp(server) as other:
        properties = Basic.Properties(headers=headers, **more)
        await other.basic_publish(body, exchange=channel.name, routing_key=str(lane), properties=properties)


async def test_what_others_put_there_comes_out(wire: Wire, server: RabbitMQ) -> None:
    channel = await wire.channel("reader")
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    odd = {
        "text": "t", "bytes": bytearray(b"\xff\x00"), "number": 5, "float": 0.5, "yes": True, "nothing": None,
        "when": when, "table": {"a": {"b": [1, when]}}, "decimal": Decimal("1.5"), "id": "no attribute", "": "no name",
        "cloudEvents:type": "a.Type", "cloudEvents_source": "recommended spelling",
        "cloudEvents:partitionkey": "the key",
    }  # fmt: skip
    await foreign(server, channel, 0, odd, b"body", content_type="text/plain", message_id="an@id")
    await foreign(server, channel, 1, None)
    reader = await wire.member("reader", channel)

    async def both() -> None:
        await reader.handle()
        assert len(reader.log) == 2

    await eventually(both)
    found, bare = sorted(reader.log, key=lambda r: r.lane)
    headers = dict(found.headers)
    assert (found.key, found.body, found.defect, found.lane) == (b"the key", b"body", "", f"{channel.name}/0")
    assert found.origin.startswith(f"{channel.name}/0@sha256:")
    assert headers["bytes"] == b"\xff\x00"
    assert headers["number"] == b"5"
    assert headers["yes"] == b"true"
    assert headers["nothing"] is None
    assert headers["when"] == b"2026-01-02T00:00:00+00:00"
    assert headers["table"] == b'{"a": {"b": [1, "2026-01-02 00:00:00+00:00"]}}'
    assert headers["decimal"] == b'"1.5"'
    assert headers["type"] == b"a.Type"
    assert headers["source"] == b"recommended spelling"
    assert headers["header:id"] == b"no attribute"
    assert headers["datacontenttype"] == b"text/plain"
    assert (bare.key, list(bare.headers), bare.body) == (None, [], b"")


class Raw(Basic.Properties):
    """Properties as they are, whatever they are."""

    def __init__(self, flags: int, raw: bytes) -> None:
        super().__init__()
        self.raw = flags.to_bytes(2, "big") + raw

    def marshal(self) -> bytes:
        return self.raw


UNREADABLE = {
    "a time beyond all years": Raw(1 << 6, b"\x7f" * 8),
    "a name that is no UTF-8": Raw(1 << 13, b"\0\0\0\x04\x02\xff\xfeV"),
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
async def test_unreadable_headers_are_a_defect_and_hold_up_nothing(wire: Wire, server: RabbitMQ, raw: Raw) -> None:
    channel = await wire.channel("reader")
    async with amqp(server) as other:
        with_id: Any = other
        # The client's own way would add an id to the properties.
        frames = [Basic.Publish(exchange=channel.name, routing_key="0"), _header(raw, 4)]
        await with_id.write_queue.put(aiormq.abc.ChannelFrame.marshall(1, [*frames, _body(b"body")]))
        await wire.publish([message(channel, key_of_lane(0), 1)])
    first, again = [await first_of(wire, channel, settle) for settle in (False, True)]
    assert first == again
    assert first.defect.startswith("its headers: ")
    assert (first.key, first.body, first.lane) == (None, b"body", f"{channel.name}/0")
    reader = await wire.member("reader", channel)
    batch = await reader.taken()
    assert [r.key for r in batch.records] == [key_of_lane(0).encode()]


def _header(properties: Basic.Properties, size: int) -> Any:
    from pamqp.header import ContentHeader

    return ContentHeader(body_size=size, properties=properties)


def _body(body: bytes) -> Any:
    from pamqp.body import ContentBody

    return ContentBody(body)


def key_of_lane(lane: int) -> str:
    return next(f"k{n}" for n in range(1000) if lane_of(f"k{n}") == lane)


async def first_of(wire: Wire, channel: Channel, settle: bool) -> Record:
    """As a member that leaves at once gets it."""
    reader = await wire.member("reader", channel)
    batch = await reader.taken(1)
    if settle:
        reader.subscription.settle(batch)
    await reader.end()
    return batch.records[0]


async def test_a_lane_that_is_given_up_comes_again_from_its_first(wire: Wire) -> None:
    channel = await wire.channel("reader")
    sent = messages(channel, "entity", range(200))
    await wire.publish(sent)
    first, second = await wire.members("reader", channel, 2)
    for member, other in ((first, second), (second, first)) * 2:
        await other.assign([])
        await member.assign(lanes_of([channel]))
        batch = await member.taken(7)
        member.log += batch.records
        member.subscription.settle(batch)
        await member.taken(5)  # in hand when it is given up
    await first.assign([])
    await second.assign(lanes_of([channel]))
    await wire.receive(second, sent)
    assert missing(sent, second.log) == []
    assert disorder(second.log) == 0


async def test_a_member_that_does_not_give_up_keeps_its_records_from_being_overtaken(wire: Wire) -> None:
    """It was paused: its lease is over, its connection is not."""
    channel = await wire.channel("reader")
    sent = messages(channel, "entity", range(100))
    await wire.publish(sent)
    paused = await wire.member("reader", channel)
    batch = await paused.taken(10)
    other = await wire.member("reader", channel)
    assert await other.take(wait=0.5) is None
    paused.subscription.settle(batch)
    await paused.subscription.close()
    rest = sent[len(batch.records) :]
    await wire.receive(other, rest)
    assert [r.origin.rpartition("@")[2] for r in other.log] == [each.id for each in rest]


@pytest.mark.slow
async def test_a_server_that_is_silent_is_away(wire: Wire, server: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody who waits for it is cancelled by that: it would look like a stop."""
    monkeypatch.setattr(connection, "HEARTBEAT_SECONDS", 1)
    channel = await wire.channel("reader")
    reader, publisher = await wire.member("reader", channel), wire.publisher()
    sent = messages(channel, "entity", range(20))
    await wire.publish(sent[:10], publisher)
    await wire.receive(reader, sent[:10])
    assert server.pid is not None
    process = psutil.Process(server.pid)
    process.suspend()
    try:
        publishing = asyncio.create_task(publisher.publish(sent[10:]))
        with pytest.raises(TransientError):
            await reader.subscription.take(500, 60)
        assert set(await publishing) == {Sent.UNKNOWN}
        with pytest.raises(TransientError):
            await reader.subscription.take(500, 1)
    finally:
        process.resume()
    await reader.assign(lanes_of([channel]))
    await wire.publish(sent[10:], publisher)
    await wire.receive(reader, sent)
    assert missing(sent, reader.log) == []


@pytest.mark.slow
async def test_a_paused_process_loses_its_lanes_in_time(wire: Wire) -> None:
    channel = await wire.channel("reader")
    sent = messages(channel, "entity", range(20))
    await wire.publish(sent)
    async with member_process(wire, "hold", consumer=wire.name("reader"), channel=channel.name, count=5) as process:
        in_hand = await told(process)
        process.send_signal(signal.SIGSTOP)
        other = await wire.member("reader", channel)
        batch = await other.taken(within=wire.traits.takeover_seconds)
    assert [r.origin for r in batch.records][: len(in_hand)] == in_hand[: len(batch.records)]


async def test_large_records_do_not_fill_the_memory(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ counts records in advance, not bytes."""
    monkeypatch.setattr(subscription, "_HELD_BYTES", 3_000_000)
    channel = await wire.channel("reader")
    sent = [message(channel, f"entity-{n % 5}", n, body=b"x" * 300_000, entity=f"entity-{n % 5}") for n in range(100)]
    await wire.publish(sent, chunk=20)
    reader = await wire.member("reader", channel)
    lanes = reader.subscription._wanted  # type: ignore[attr-defined]
    most = 0
    while missing(sent, reader.log) and await reader.handle(3, wait=2):
        most = max(most, sum(lane.size for lane in lanes))
        await asyncio.sleep(0.02)  # the handler
    assert missing(sent, reader.log) == []
    assert disorder(reader.log) == 0
    assert most < 3_000_000 + 5 * 300_000 + 32 * 300_000
    small = [message(channel, f"entity-{n % 5}", n) for n in range(100, 200)]
    await wire.publish(small)
    await wire.receive(reader, small)
    assert {lane.prefetch for lane in lanes} == {PREFETCH}


async def test_a_queue_that_is_deleted_is_made_again(wire: Wire, server: RabbitMQ) -> None:
    channel = await wire.channel("reader")
    reader = await wire.member("reader", channel)
    async with amqp(server) as other:
        await other.queue_delete(f"{channel.name}.reader.{lane_of('entity')}")
    await reader.take(wait=0.5)
    sent = messages(channel, "entity", range(5))
    await wire.publish(sent)
    await wire.receive(reader, sent)
    assert missing(sent, reader.log) == []


async def test_backlog_of_what_is_missing(wire: Wire, server: RabbitMQ) -> None:
    channel = await wire.channel("reader")
    reader = Member(wire.transport(), "reader", [channel], [])
    await reader.subscription.open()
    await reader.assign([f"{channel.name}/0", f"{channel.name}/1"])
    await foreign(server, channel, 1, None)
    batch = await reader.taken()
    async with amqp(server) as other:
        await other.queue_delete(f"{channel.name}.reader.0")
    assert await reader.subscription.backlog() == {f"{channel.name}/0": None, f"{channel.name}/1": 1}
    reader.subscription.settle(batch)

    async def settled() -> None:
        assert (await reader.subscription.backlog())[f"{channel.name}/1"] == 0

    await eventually(settled)
    await reader.end()


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("programs", "says"),
    [
        ({}, "without apt-get and dpkg"),
        ({"apt-get": "", "dpkg": "", "apt-cache": ""}, "apt knows no package rabbitmq-server.*apt-get update"),
        (
            {"apt-get": "echo E: no network >&2; exit 100", "dpkg": "", "apt-cache": "echo rabbitmq-server"},
            "no network",
        ),
    ],
    ids=["no Debian", "no lists", "no network"],
)
async def test_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str], says: str
) -> None:
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rabbitmq_packages, "_installed", lambda: None)
    with pytest.raises(PlatformError, match=f"{says}.*FTGO_BROKER_URL"):
        await RabbitMQ(tmp_path / "rabbitmq", free_port()).prepare()
    assert list((tmp_path / "cache").rglob("rabbitmq*")) == []


async def test_a_second_server_beside_it_and_nothing_left(server: RabbitMQ) -> None:
    """Each has a port mapper of its own; a killed one leaves no process, and its messages are there again."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    second = RabbitMQ(path / "rabbitmq", free_port())
    channel = Channel("kept", Kind.EVENT)
    try:
        await second.start()
        wire = Wire(OnServer(second, transport))
        await wire.transport().declare([channel], {channel.name: [wire.name("reader")]})
        sent = messages(channel, "entity", range(20))
        await wire.publish(sent)
        await wire.close()
        second.kill()
        assert second.pid is None
        assert "SIGKILL" in second.end
        assert processes_in(path) == []
        await second.start()
        reader = await wire.member("reader", channel)
        await wire.receive(reader, sent)
        assert missing(sent, reader.log) == []
        await wire.close()
        second.stop()
        assert second.end == "ended with exit code 0"
        assert processes_in(path) == []
        assert server.pid is not None
    finally:
        second.kill()
        shutil.rmtree(path, ignore_errors=True)


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder.resolve()):
                found.append(process.name())
        except psutil.Error:
            pass
    return found
