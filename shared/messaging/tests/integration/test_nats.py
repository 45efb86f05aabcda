"""The adapter for NATS on a real server: what JetStream does not give by itself, and what a foreign client may send."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ftgo_local.brokers.nats import Nats
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.transport_suite import OnServer, Subject, TransportSuite
from ftgo_messaging.transports.lanes import LANES, lane_of
from ftgo_messaging.transports.nats import NatsTransport
from ftgo_messaging.transports.nats import transport as nats_transport
from ftgo_messaging.transports.nats.connection import Address, Connection
from ftgo_messaging.transports.nats.subscription import NatsSubscription
from ftgo_messaging.transports.nats.wire import stream_of, subject_of
from ftgo_messaging.transports.port import BrokerRefuses, Record, Sent

CONSUMER = "kitchen.service"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-nats-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def nats(folder: Path) -> Iterator[Nats]:
    server = Nats(folder / "nats", free_port())
    asyncio.run(server.start())
    yield server
    server.kill()  # an orderly stop closes hundreds of durables, for seconds


@pytest.fixture
def transport(nats: Nats) -> NatsTransport:
    return NatsTransport(nats.url)


def new_channel() -> Channel:
    return Channel(f"kitchen.commands.{new_id()}", Kind.EVENT)


@pytest.fixture
async def channel(transport: NatsTransport) -> Channel:
    made = new_channel()
    assert await transport.declare([made], {made.name: [CONSUMER]}) == [made.name]
    return made


def lanes(*channels: Channel) -> list[str]:
    return [f"{channel.name}/{i}" for channel in channels for i in range(LANES)]


def message(channel: Channel, key: str, number: int, body: bytes = b"{}") -> Message:
    return Message(new_id(), channel.name, key, {m.ID: new_id(), m.TYPE: "T", m.SEQUENCE: str(number)}, body)


def messages(channel: Channel, count: int, first: int = 0) -> list[Message]:
    """Of 30 keys in turn."""
    return [message(channel, f"k{n % 30}", n) for n in range(first, first + count)]


async def publish(transport: NatsTransport, messages: Sequence[Message]) -> list[Sent]:
    publisher = transport.publisher("test")
    try:
        return list(await publisher.publish(messages))
    finally:
        await publisher.close()


@asynccontextmanager
async def member(
    transport: NatsTransport, *channels: Channel, of: Sequence[str] | None = None
) -> AsyncIterator[NatsSubscription]:
    """One that has these lanes, all if none are named."""
    subscription = transport.subscription(CONSUMER, channels)
    try:
        await subscription.open()
        await subscription.assign(lanes(*channels) if of is None else of)
        yield subscription
    finally:
        await subscription.close()


async def taken(
    subscription: NatsSubscription, count: int, *, settle: bool = True, within: float = 10.0
) -> list[Record]:
    """So many records, in as many batches as it needs."""
    records: list[Record] = []
    deadline = time.monotonic() + within
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count}"
        if batch := await subscription.take(500, 0.5):
            records += batch.records
            if settle:
                subscription.settle(batch)
    return records


def number(record: Record) -> int:
    return int(dict(record.headers)[m.SEQUENCE] or b"")


def assert_in_order(records: Sequence[Record]) -> None:
    by_key: dict[bytes | None, list[int]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(number(record))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


async def state(nats: Nats, channel: Channel) -> dict[str, int]:
    link = await Connection(Address.of(nats.url), "state").connect()
    try:
        found: dict[str, int] = (await link.api(f"STREAM.INFO.{stream_of(channel.name)}"))["state"]
        return found
    finally:
        await link.close()


async def test_what_is_confirmed_comes_in_order_and_goes_when_settled(
    nats: Nats, transport: NatsTransport, channel: Channel
) -> None:
    sent = messages(channel, 1000)
    assert set(await publish(transport, sent)) == {Sent.CONFIRMED}
    async with member(transport, channel) as subscription:
        assert sum(x or 0 for x in (await subscription.backlog()).values()) == 1000
        records = await taken(subscription, 1000)
        assert sorted(map(number, records)) == list(range(1000))
        assert_in_order(records)
        assert {r.lane for r in records} <= set(lanes(channel))
        assert all(r.lane == f"{channel.name}/{lane_of((r.key or b'').decode())}" for r in records)
        assert await subscription.take(500, 0.1) is None

        async def nothing_waits() -> None:
            assert set((await subscription.backlog()).values()) == {0}
            assert (await state(nats, channel))["messages"] == 0

        await eventually(nothing_waits)


async def test_headers_travel_as_they_are(transport: NatsTransport, channel: Channel) -> None:
    headers = {
        m.ID: new_id(), m.TYPE: "ftgo.Größe", m.CONTENT_TYPE: "application/json; x=\"y\"", m.SUBJECT: " a\r\nb%20 ",
        m.TRACEPARENT: "00-ab-cd-01", m.SOURCE: "", "own": "x" * 8192,
    }  # fmt: skip
    body = bytes(range(256)) * 4
    await publish(transport, [Message(headers[m.ID], channel.name, "schlüssel €", headers, body)])
    async with member(transport, channel) as subscription:
        (record,) = await taken(subscription, 1)
    assert record.key == "schlüssel €".encode()
    assert dict(record.headers) == {name: value.encode() for name, value in headers.items()}
    assert (record.body, record.defect) == (body, "")


async def test_what_cannot_be_stored_is_refused(transport: NatsTransport, channel: Channel) -> None:
    missing = new_channel()
    found = await publish(
        transport,
        [
            message(missing, "k", 0),
            message(channel, "k", 1, b"x" * 1_000_000),
            message(channel, "k", 2, b"x" * 990_000),
            Message(new_id(), channel.name, "k", {"no header": "x"}, b""),
        ],
    )
    assert found == [Sent.REFUSED, Sent.REFUSED, Sent.CONFIRMED, Sent.REFUSED]
    async with member(transport, channel) as subscription:
        (record,) = await taken(subscription, 1)
    assert (number(record), len(record.body or b"")) == (2, 990_000)


async def test_an_event_without_readers_is_confirmed_and_not_kept(nats: Nats, transport: NatsTransport) -> None:
    channel = new_channel()
    await transport.declare([channel], {})
    assert set(await publish(transport, messages(channel, 10))) == {Sent.CONFIRMED}
    assert (await state(nats, channel))["messages"] == 0


async def test_a_full_stream_refuses_and_drops_nothing(nats: Nats) -> None:
    transport = NatsTransport(f"{nats.url}/?channel_mib=1")
    channel = new_channel()
    await transport.declare([channel], {channel.name: [CONSUMER]})
    sent = await publish(transport, [message(channel, "k", n, b"x" * 100_000) for n in range(12)])
    kept = sent.count(Sent.CONFIRMED)
    assert 5 < kept < 12
    assert sent == [Sent.CONFIRMED] * kept + [Sent.REFUSED] * (12 - kept)
    async with member(transport, channel) as subscription:
        assert [number(r) for r in await taken(subscription, kept)] == list(range(kept))

        async def there_is_room() -> None:
            assert await publish(transport, [message(channel, "k", 99)]) == [Sent.CONFIRMED]

        await eventually(there_is_room)


async def test_each_consumer_gets_all_and_one_that_was_away_too(transport: NatsTransport) -> None:
    channel = new_channel()
    await transport.declare([channel], {channel.name: [CONSUMER, "other"]})
    await publish(transport, messages(channel, 100))
    async with member(transport, channel) as subscription:
        await taken(subscription, 100)
    other = transport.subscription("other", [channel])
    await other.open()
    await other.assign(lanes(channel))
    assert_in_order(await taken(other, 100))
    await other.close()


async def test_what_a_dead_member_had_comes_at_once_and_first(transport: NatsTransport, channel: Channel) -> None:
    await publish(transport, messages(channel, 300))
    dead = transport.subscription(CONSUMER, [channel])
    await dead.assign(lanes(channel))
    first = await taken(dead, 100, settle=False)
    assert dead._link is not None
    await dead._link.close()  # as its operating system does it
    await publish(transport, messages(channel, 300, 300))
    begin = time.monotonic()
    async with member(transport, channel) as subscription:
        records = await taken(subscription, 1)
        assert time.monotonic() - begin < transport.traits.takeover_seconds
        records += await taken(subscription, 600 - len(records))
    assert_in_order(records)
    assert {r.origin for r in first} <= {r.origin for r in records}
    assert len({r.origin for r in records}) == 600


async def test_a_lane_given_up_gets_nothing_more(transport: NatsTransport, channel: Channel) -> None:
    async with member(transport, channel) as one, member(transport, channel, of=[]) as other:
        await publish(transport, messages(channel, 200))
        batch = await one.take(50, 5)
        assert batch is not None
        await one.assign([])
        one.settle(batch)
        await one.release(batch)
        begin = time.monotonic()
        await other.assign(lanes(channel))
        await publish(transport, messages(channel, 200, 200))
        records = await taken(other, 400)
        assert time.monotonic() - begin < 1.0
        assert_in_order(records)
        assert len({r.origin for r in records}) == 400
        assert await one.take(50, 0) is None


async def test_a_paused_member_takes_nothing_away_and_mixes_nothing_up(
    transport: NatsTransport, channel: Channel
) -> None:
    """Its requests are open still: the server gives it what is another's. That comes again, before anything later."""
    async with member(transport, channel) as paused, member(transport, channel) as owner:
        await publish(transport, messages(channel, 120))

        async def it_has_got_some() -> None:
            assert sum(len(lane.items) for lane in paused._lanes.values()) > 0

        await eventually(it_has_got_some)
        await publish(transport, messages(channel, 120, 120))
        records = await taken(owner, 240, within=25)
    assert_in_order(records)
    assert len({r.origin for r in records}) == len(records)


async def test_late_acknowledgements_of_a_predecessor_do_no_harm(
    nats: Nats, transport: NatsTransport, channel: Channel
) -> None:
    await publish(transport, messages(channel, 100))
    late = transport.subscription(CONSUMER, [channel])
    await late.assign(lanes(channel))
    batches = [await late.take(50, 5), await late.take(50, 5)]
    async with member(transport, channel) as owner:
        records = await taken(owner, 10)
        for batch in batches:
            assert batch is not None
            late.settle(batch)
        await late.close()
        await publish(transport, messages(channel, 100, 100))
        # What has not been on its way to the new one yet may be gone: it was committed by the old one.
        while batch := await owner.take(500, 0.5):
            owner.settle(batch)
            records += batch.records
        assert_in_order(records)
        assert {number(r) for r in records} >= set(range(100, 200))

        async def nothing_waits() -> None:
            assert (await state(nats, channel))["messages"] == 0

        await eventually(nothing_waits)


async def test_what_is_released_comes_again_before_anything_later(transport: NatsTransport, channel: Channel) -> None:
    await publish(transport, messages(channel, 300))
    async with member(transport, channel) as subscription:
        first = await subscription.take(100, 5)
        assert first is not None
        await subscription.release(first)
        records: list[Record] = []
        while len(records) < 300:
            batch = await subscription.take(7, 5)
            assert batch is not None
            records += batch.records
            subscription.settle(batch)
    assert_in_order(records)
    assert len({r.origin for r in records}) == 300


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_the_server_is_killed_and_comes_back(folder: Path, acknowledged: bool) -> None:
    server = Nats(folder / f"killed-{acknowledged}", free_port())
    await server.start()
    transport, channel = NatsTransport(server.url), new_channel()
    publisher, subscription = transport.publisher("test"), transport.subscription(CONSUMER, [channel])
    try:
        await transport.declare([channel], {channel.name: [CONSUMER]})
        assert set(await publisher.publish(messages(channel, 300))) == {Sent.CONFIRMED}
        await subscription.open()
        await subscription.assign(lanes(channel))
        before = await taken(subscription, 300, settle=acknowledged)
        if acknowledged:

            async def nothing_waits() -> None:
                assert (await state(server, channel))["messages"] == 0

            await eventually(nothing_waits)
        server.kill()
        with pytest.raises(TransientError):
            await subscription.take(1, 5)
        with pytest.raises(TransientError):
            await publisher.publish(messages(channel, 1))
        await server.start()
        assert set(await publisher.publish(messages(channel, 300, 300))) == {Sent.CONFIRMED}
        records: list[Record] = []

        async def all_have_come() -> None:
            batch = await subscription.take(500, 0.5)
            if batch is not None:
                records.extend(batch.records)
                subscription.settle(batch)
            assert {number(r) for r in records} >= set(range(0 if not acknowledged else 300, 600))

        await eventually(all_have_come)
        assert_in_order(records)
        if not acknowledged:
            assert {r.origin for r in before} <= {r.origin for r in records}
    finally:
        await publisher.close()
        await subscription.close()
        server.stop()


async def test_a_server_that_dies_or_stands_still_meanwhile_confirms_nothing(folder: Path) -> None:
    server = Nats(folder / "stands-still", free_port())
    await server.start()
    transport, channel = NatsTransport(server.url), new_channel()
    publisher = transport.publisher("test")
    publisher._answer_seconds = 0.5
    try:
        await transport.declare([channel], {channel.name: [CONSUMER]})
        await publisher.publish(messages(channel, 1))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        assert set(await publisher.publish(messages(channel, 5000, 1))) == {Sent.UNKNOWN}
        with pytest.raises(TransientError):
            await publisher.publish(messages(channel, 1))
        os.kill(server.pid, signal.SIGCONT)
        publisher._answer_seconds = 20
        publishing = asyncio.ensure_future(publisher.publish(messages(channel, 20_000)))
        await asyncio.sleep(0.1)  # in the middle of it, or before: both are good
        server.kill()
        found = await publishing
        await server.start()
        async with member(transport, channel) as subscription:
            waiting = sum(x or 0 for x in (await subscription.backlog()).values())
        assert waiting >= list(found).count(Sent.CONFIRMED)
    finally:
        await publisher.close()
        server.stop()


FOREIGN = [
    b"",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\nce-id: x\r\nce-partitionkey: k%C3%BC\r\n\r\n",
    b"NATS/1.0\r\nid: x\r\nCE-ID: y\r\n\r\n",
    b"NATS/1.0\r\nce-id: \xff\xfe\r\nce-type: %FF%zz\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: x\r\n\r\n",
    b"NATS/1.0\r\nno colon here\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0\r\na b: c\r\na b: d\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 408 Request Timeout\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff \xfe\r\n\r\n",
    b"NATS/1.0\r\nx: \x00\x01\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"junk\r\n\r\n",
    b"x",
]


async def test_whatever_stands_there_comes_out_as_a_record(
    nats: Nats, transport: NatsTransport, channel: Channel
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"lang":"raw","version":"1"}\r\n')
    subject = subject_of(channel.name, 3).encode()
    for headers in FOREIGN:
        if headers:
            writer.write(b"HPUB %s %d %d\r\n%s\r\n" % (subject, len(headers), len(headers) + 4, headers + b"body"))
        else:
            writer.write(b"PUB %s 4\r\nbody\r\n" % subject)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()
    kept = (await state(nats, channel))["messages"]
    await publish(transport, [message(channel, next(k for k in map(str, range(99)) if lane_of(k) == 3), 1)])
    async with member(transport, channel) as subscription:
        records = await taken(subscription, kept + 1)
        assert number(records[-1]) == 1
    foreign = records[:-1]
    assert {r.body for r in foreign} == {b"body"}
    assert (foreign[0].key, foreign[0].headers, foreign[0].defect) == (None, [], "")
    assert (foreign[2].key, foreign[2].headers) == ("kü".encode(), [("id", b"x")])
    assert foreign[3].headers == [("header:id", b"x"), ("CE-ID", b"y")]
    assert sum(bool(r.defect) for r in foreign) >= 4
    assert kept == len(FOREIGN)


async def test_declare_changes_nothing_that_is_there(nats: Nats, transport: NatsTransport, channel: Channel) -> None:
    assert await transport.declare([channel], {channel.name: [CONSUMER, "later"]}) == []
    other = NatsTransport(f"{nats.url}/?lanes=5")
    with pytest.raises(BrokerRefuses, match="12 lanes, not 5"):
        await other.declare([channel], {})
    with pytest.raises(BrokerRefuses, match="12 lanes, not 5"):
        await other.subscription(CONSUMER, [channel]).open()
    with pytest.raises(BrokerRefuses, match="no stream"):
        await transport.subscription(CONSUMER, [new_channel()]).open()
    foreign = new_channel()
    link = await Connection(Address.of(nats.url), "foreign").connect()
    await link.api(f"STREAM.CREATE.{stream_of(foreign.name)}", name=stream_of(foreign.name), subjects=["foreign.>"])
    await link.close()
    with pytest.raises(BrokerRefuses, match="somebody else"):
        await transport.declare([foreign], {})


async def test_who_may_not_come_in_is_told_so_and_who_finds_nobody_waits(folder: Path) -> None:
    server = Nats(folder / "password", free_port(), user="ftgo", password='a "b\\c')
    await server.start()
    channel = new_channel()
    try:
        for credentials in ("", "ftgo:wrong@"):
            transport = NatsTransport(f"nats://{credentials}127.0.0.1:{server.port}")
            for work in (
                transport.declare([channel], {}),
                transport.publisher("x").publish(messages(channel, 1)),
                transport.subscription("x", [channel]).open(),
            ):
                with pytest.raises(BrokerRefuses, match="user"):
                    await work
        assert await NatsTransport(server.url).declare([channel], {}) == [channel.name]
    finally:
        server.stop()
    with pytest.raises(TransientError):
        await NatsTransport(server.url).declare([channel], {})


@pytest.mark.parametrize(
    "url", ["nats://", "nats://h/?lanes=0", "nats://h/?lanes=x", "nats://h/?lane=3", "nats://h:x", "nats://h/?lanes"]
)
def test_a_bad_url_is_told_so(url: str) -> None:
    with pytest.raises(BrokerRefuses, match="should look like"):
        NatsTransport(url)


async def test_nothing_is_left_behind(transport: NatsTransport, channel: Channel) -> None:
    """Also when what waits is cancelled, again and again at another moment."""
    before = asyncio.all_tasks()
    publisher = transport.publisher("test")
    async with member(transport, channel) as subscription:
        for i in range(30):
            lost = await subscription._connected() if i % 10 == 9 else None
            work = [asyncio.ensure_future(publisher.publish(messages(channel, 200)))]
            work.append(asyncio.ensure_future(subscription.take(500, 5)))
            if lost is not None:
                await lost.close()
            await asyncio.sleep(i / 1000)
            for each in work:
                each.cancel()
            await asyncio.wait(work)
            if not work[1].cancelled() and work[1].exception() is None and (batch := work[1].result()):
                subscription.settle(batch)
        assert set(await publisher.publish(messages(channel, 1))) == {Sent.CONFIRMED}
        assert await taken(subscription, 1)
    await publisher.close()

    async def nothing() -> None:
        assert asyncio.all_tasks() == before

    await eventually(nothing)


async def test_idle_lanes_cost_little(transport: NatsTransport) -> None:
    channels = [new_channel() for _ in range(3)]
    await transport.declare(channels, {})
    async with member(transport, *channels) as subscription:
        assert subscription._link is not None
        before = subscription._link.client.stats["out_msgs"]
        begin = time.process_time()
        for _ in range(20):
            assert await subscription.take(500, 0.3) is None
        asked = subscription._link.client.stats["out_msgs"] - before
        assert 36 <= asked <= 2 * 36, asked
        assert time.process_time() - begin < 0.3


async def test_with_much_waiting_the_memory_of_a_member_is_bounded(transport: NatsTransport, channel: Channel) -> None:
    body = b"x" * 10_000
    for first in range(0, 10_000, 1000):
        await publish(transport, [message(channel, f"k{n % 30}", n, body) for n in range(first, first + 1000)])
    async with member(transport, channel) as subscription:
        records = 0
        while records < 10_000:
            batch = await subscription.take(500, 5)
            assert batch is not None
            assert sum(len(r.body or b"") for r in batch.records) <= 1_000_000
            assert sum(item.size for lane in subscription._lanes.values() for item in lane.items) < 12 * 300_000
            records += len(batch.records)
            subscription.settle(batch)


async def test_large_records_come_one_by_one(nats: Nats, transport: NatsTransport, channel: Channel) -> None:
    sent = [message(channel, "k", n, b"x" * (990_000 if n % 3 else 10)) for n in range(30)]
    assert set(await publish(transport, sent)) == {Sent.CONFIRMED}
    link = await Connection(Address.of(nats.url), "foreign").connect()
    await link.client.request(subject_of(channel.name, lane_of("k")), b"y" * 2_000_000, timeout=5)
    await link.close()
    async with member(transport, channel) as subscription:
        records = await taken(subscription, 31)
    assert list(map(number, records[:30])) == list(range(30))
    assert len(records[30].body or b"") == 2_000_000


async def test_order_holds_while_lanes_change_hands(transport: NatsTransport, channel: Channel) -> None:
    """Four members, lanes moved around between them by a stand-in for the leases, one dead or paused now and then."""
    done: list[Record] = []
    total = 6000
    owners: dict[str, NatsSubscription | None] = dict.fromkeys(lanes(channel))
    members = [transport.subscription(CONSUMER, [channel]) for _ in range(3)]
    publishing = asyncio.ensure_future(_publish_slowly(transport, channel, total))
    turn = 0
    try:
        while len({r.origin for r in done}) < total:
            turn += 1
            assert turn < 2000
            one = members[turn % 3]
            if turn % 7 == 0:
                for i, lane in enumerate(owners):
                    owners[lane] = members[(i + turn) % 3]
                if turn % 21 == 0 and one._link is not None:
                    await one._link.close()
                for each in members:
                    await each.assign([])
                for each in members:
                    await each.assign([lane for lane, owner in owners.items() if owner is each])
            batch = await one.take(200, 0.02)
            if batch is None:
                continue
            if turn % 5 == 0:
                await one.release(batch)
            else:
                done += batch.records
                one.settle(batch)
    finally:
        await publishing
        for each in members:
            await each.close()
    first: dict[str, Record] = {}
    for record in done:
        first.setdefault(record.origin, record)
    assert_in_order(list(first.values()))
    assert len(first) == total


async def _publish_slowly(transport: NatsTransport, channel: Channel, total: int) -> None:
    publisher = transport.publisher("test")
    for first in range(0, total, 100):
        assert set(await publisher.publish(messages(channel, 100, first))) == {Sent.CONFIRMED}
        await asyncio.sleep(0.01)
    await publisher.close()


@pytest.fixture(scope="module")
async def subject(folder: Path) -> AsyncIterator[Subject]:
    server = Nats(folder / "suite", free_port())
    await server.start()
    yield OnServer(server, nats_transport)
    server.kill()


class TestNats(TransportSuite):
    """All tests of the conformance suite."""


async def test_a_server_that_is_too_old_is_refused_in_a_sentence() -> None:
    async def older(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As far as a client goes to be connected."""
        writer.write(b'INFO {"version": "2.10.27", "max_payload": 1048576, "headers": true}\r\n')
        while b"PING" not in await reader.readline():
            pass
        writer.write(b"PONG\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(older, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrokerRefuses, match=r"is 2\.10\.27; 2\.14 or later is needed"):
            await nats_transport(f"nats://127.0.0.1:{port}").declare([], {})
