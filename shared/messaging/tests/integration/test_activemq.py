"""ActiveMQ Classic, a real one over STOMP: what its adapter rests on, and the conformance suite."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ftgo_local.brokers.activemq import ActiveMQ
from ftgo_local.ports import free_port
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.transport_suite import OnServer, Subject, TransportSuite
from ftgo_messaging.transports import activemq
from ftgo_messaging.transports.activemq import wire
from ftgo_messaging.transports.activemq.link import Link
from ftgo_messaging.transports.activemq.names import queue, topic
from ftgo_messaging.transports.lanes import LANES, lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Record, Sent, Subscription, Transport
from stompman import MessageFrame, SendFrame, SubscribeFrame

READER = "reader.of tests"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
async def server(folder: Path) -> AsyncIterator[ActiveMQ]:
    server = ActiveMQ(folder / "activemq", free_port())
    await server.start()
    yield server
    server.stop()


@pytest.fixture
def transport(server: ActiveMQ) -> activemq.ActiveMq:
    return activemq.transport(server.url)


@pytest.mark.slow
@pytest.mark.brokers
class TestActiveMq(TransportSuite):
    @pytest.fixture
    def subject(self, server: ActiveMQ) -> Subject:
        return OnServer(server, activemq.transport)


async def channel_of(transport: Transport, *readers: str) -> Channel:
    channel = Channel(f"test.{new_id()}", Kind.EVENT)
    assert await transport.declare([channel], {channel.name: readers}) == [channel.name]
    return channel


def messages(channel: Channel, count: int, key: str = "key", first: int = 0, **headers: str) -> list[Message]:
    return [
        Message(f"{n}", channel.name, key, {"id": f"{n}", **headers}, b"%d" % n) for n in range(first, first + count)
    ]


async def publish(transport: Transport, sent: Sequence[Message]) -> Sequence[Sent]:
    publisher = transport.publisher("test")
    try:
        return await publisher.publish(sent)
    finally:
        await publisher.close()


@asynccontextmanager
async def member(transport: Transport, channel: Channel, consumer: str = READER) -> AsyncIterator[Subscription]:
    """With all lanes."""
    subscription = transport.subscription(consumer, [channel])
    await subscription.open()
    try:
        await subscription.assign([f"{channel.name}/{lane}" for lane in range(LANES)])
        yield subscription
    finally:
        await subscription.close()


async def taken(subscription: Subscription, count: int, *, settle: bool = True) -> list[Record]:
    """So many records, or what has come within five seconds."""
    found: list[Record] = []
    until = time.monotonic() + 5
    while len(found) < count and time.monotonic() < until:
        batch = await subscription.take(500, 0.2)
        if batch is not None:
            found += batch.records
            if settle:
                subscription.settle(batch)
    return found


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(record.body or b"-1") for record in records]


@asynccontextmanager
async def bare(transport: activemq.ActiveMq) -> AsyncIterator[Link]:
    link = await Link.connect(transport._address)
    yield link
    link.abort()


async def test_empty_queues_outlive_the_broker(server: ActiveMQ, transport: activemq.ActiveMq) -> None:
    """Killed right after they were declared, before they held a message of anybody."""
    channel = await channel_of(transport, READER)
    server.kill()
    await server.start()
    sent = [m for key in "abcdefghij" for m in messages(channel, 3, key)]
    assert set(await publish(transport, sent)) == {Sent.CONFIRMED}
    async with member(transport, channel) as subscription:
        assert len(await taken(subscription, 30)) == 30


async def test_read_and_empty_queues_outlive_the_broker(server: ActiveMQ, transport: activemq.ActiveMq) -> None:
    channel = await channel_of(transport, READER)
    async with member(transport, channel) as subscription:
        assert await subscription.take(500, 0.3) is None  # the markers are no records
    for _ in range(2):
        server.stop()
        await server.start()
    await publish(transport, messages(channel, 3))
    async with member(transport, channel) as subscription:
        assert numbers(await taken(subscription, 3)) == [0, 1, 2]


async def test_a_broker_that_lost_its_data_refuses(folder: Path) -> None:
    """The publisher knows channels for as long as its connection lives, and no longer."""
    server = ActiveMQ(folder / "lost", free_port())
    await server.start()
    try:
        transport = activemq.transport(server.url)
        channel = await channel_of(transport, READER)
        publisher = transport.publisher("test")
        assert await publisher.publish(messages(channel, 1)) == [Sent.CONFIRMED]
        server.kill()
        shutil.rmtree(server.directory.resolve() / "data")
        await server.start()

        async def refused() -> None:
            try:
                assert await publisher.publish(messages(channel, 1)) == [Sent.REFUSED]
            except TransientError as error:
                raise AssertionError from error

        await eventually(refused)
        await publisher.close()
        with pytest.raises(BrokerRefuses, match=f"no channel {channel.name}"):
            await transport.subscription(READER, [channel]).open()
    finally:
        server.stop()


async def test_another_number_of_lanes_is_refused(server: ActiveMQ, transport: activemq.ActiveMq) -> None:
    channel = await channel_of(transport, READER)
    other = activemq.transport(f"{server.url}?lanes=5")
    with pytest.raises(BrokerRefuses, match="has 12 lanes at ActiveMQ, not 5: set lanes=12"):
        await other.declare([channel], {})
    with pytest.raises(BrokerRefuses, match="has 12 lanes"):
        await other.subscription(READER, [channel]).open()
    # A publisher goes by what there is.
    assert await publish(other, messages(channel, 1, "b")) == [Sent.CONFIRMED]
    async with member(transport, channel) as subscription:
        (record,) = await taken(subscription, 1)
        assert record.lane == f"{channel.name}/{lane_of('b')}"


async def test_declared_by_many_at_once(transport: activemq.ActiveMq) -> None:
    channel = Channel(f"test.{new_id()}", Kind.EVENT)
    await asyncio.gather(*(transport.declare([channel], {channel.name: [READER]}) for _ in range(5)))
    await publish(transport, messages(channel, 10))
    async with member(transport, channel) as subscription:
        assert numbers(await taken(subscription, 11)) == list(range(10))
        assert set((await subscription.backlog()).values()) == {0}


async def test_the_guilty_message_is_found(transport: activemq.ActiveMq, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the broker does not take costs the connection; the others arrive, in order."""
    channel = await channel_of(transport, READER)
    monkeypatch.setattr(wire, "_LONGEST_LINE", 100_000)
    sent = [*messages(channel, 5), *messages(channel, 1, first=5, long="x" * 20_000), *messages(channel, 5, first=6)]
    outcomes = await publish(transport, sent)
    assert outcomes == [Sent.CONFIRMED] * 5 + [Sent.REFUSED] + [Sent.CONFIRMED] * 5
    async with member(transport, channel) as subscription:
        assert numbers(await taken(subscription, 11)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


async def test_what_no_header_can_hold_is_refused(transport: activemq.ActiveMq) -> None:
    channel = await channel_of(transport, READER)
    odd = [{"a": "x" * 10_001}, {"a": "\ud800"}, {f"h{n}": "" for n in range(1001)}, {"a": "€" * 3000, "": "\0\r\n%41"}]
    sent = [Message("1", channel.name, "key", headers, b"\0" * 10) for headers in odd]
    assert await publish(transport, sent) == [Sent.REFUSED, Sent.REFUSED, Sent.REFUSED, Sent.CONFIRMED]
    async with member(transport, channel) as subscription:
        (record,) = await taken(subscription, 1)
        assert record.body == b"\0" * 10
        assert dict(record.headers) == {name: value.encode() for name, value in odd[3].items()}


async def test_anything_that_stands_there_is_a_record(transport: activemq.ActiveMq) -> None:
    """Sent by a foreign client, to the topic and into the queue: none kills the reader, and none hides what follows."""
    channel = await channel_of(transport, READER)
    places = [topic(channel.name, 3), queue(READER, channel.name, 3)]
    lines = [
        b"x:\xff\xfe",
        b"x:a\0b",
        b"x:a:b",
        b"x:\\q\\r",
        b"ce-id:%FF%0",
        b"correlation-id:1",
        b"ce-partitionkey:\0",
    ]
    lines += [b"type:t", b"JMSXGroupID:g", b"priority:9", b"ftgo-lanes", b"ce-%E2%82:x", b"content-type:\0text/plain"]
    count = 0
    async with bare(transport) as link:
        for place in places:
            for line in lines:
                link._writer.write(
                    b"SEND\ndestination:%s\npersistent:true\n%s\ncontent-length:4\n\n%d\0\0"
                    % (place.encode(), line, 100 + count)
                )
                count += 1
        # Text without a length, and nothing at all.
        link.write(SendFrame(headers={"destination": places[0]}, body="text ž".encode()))
        link.write(SendFrame(headers={"destination": places[0]}, body=b""))
        await link.sure(link.ask(SendFrame, {"destination": places[0], "content-length": "4"}, body=b"\0\0\0\n"))
    async with member(transport, channel) as subscription:
        found = await taken(subscription, count + 3)
        assert sorted(r.body or b"" for r in found) == sorted(
            [*(b"%d\0" % (100 + n) for n in range(count)), "text ž".encode(), b"", b"\0\0\0\n"]
        )
        assert len({r.origin for r in found}) == len(found)
        assert {r.lane for r in found} == {f"{channel.name}/3"}
        assert {r.key for r in found} == {None, b"\0"}
        assert (b"ce-id:%FF%0"[6:], b"a\0b") == (b"%FF%0", next(v for r in found for n, v in r.headers if v == b"a\0b"))
        assert set((await subscription.backlog()).values()) <= {0, None}
    async with member(transport, channel) as subscription:
        assert await subscription.take(10, 0.5) is None


async def test_origins_are_the_same_at_each_delivery(server: ActiveMQ, transport: activemq.ActiveMq) -> None:
    """Over connections, lanes given up, and the broker's restart; and nothing is in its dead letters after 12 times."""
    channel = await channel_of(transport, READER)
    await publish(transport, messages(channel, 20))
    origins = []
    for attempt in range(12):
        async with member(transport, channel) as subscription:
            found = await taken(subscription, 20, settle=False)
            assert numbers(found) == list(range(20))
            origins.append([record.origin for record in found])
            if attempt % 3 == 0:
                await subscription.assign([])
            elif attempt % 3 == 1:
                subscription._link.abort()  # type: ignore[attr-defined]
        if attempt == 5:
            server.kill()
            await server.start()
    assert origins == [origins[0]] * 12
    dead: list[MessageFrame] = []

    async def note(frame: MessageFrame) -> None:
        dead.append(frame)

    async with bare(transport) as link:
        link.on_message = note
        await link.sure(link.ask(SubscribeFrame, {"id": "d", "destination": "/queue/ActiveMQ.DLQ", "ack": "client"}))
        await publish(transport, messages(channel, 1))  # a moment in which they would come
    assert dead == []


async def test_a_lane_that_is_given_up_is_at_once_with_another(transport: activemq.ActiveMq) -> None:
    channel = await channel_of(transport, READER)
    await publish(transport, messages(channel, 300))
    lane = f"{channel.name}/{lane_of('key')}"
    async with member(transport, channel) as first, member(transport, channel, READER) as second:
        batch = await first.take(10, 5)
        assert batch is not None
        first.settle(batch)
        in_hand = await first.take(10, 5)
        assert in_hand is not None
        assert await second.take(10, 0.3) is None  # exclusive
        await first.assign([])
        first.settle(in_hand)  # of a lane that was given up: nothing
        found = await taken(second, 290)
        assert numbers(found) == list(range(10, 300))
        assert await first.backlog() == {}
        await first.assign([lane])
        await second.assign([])
        await publish(transport, messages(channel, 5, first=300))
        assert numbers(await taken(first, 5)) == list(range(300, 305))


async def test_a_member_that_stands_still_loses_its_lanes(server: ActiveMQ, transport: activemq.ActiveMq) -> None:
    """Until then nobody gets what comes after the records that it has in hand."""
    channel = await channel_of(transport, READER)
    await publish(transport, messages(channel, 200))
    program = (
        "import asyncio, sys\n"
        "from ftgo_messaging.messages.channel import Channel, Kind\n"
        "from ftgo_messaging.transports.activemq import transport\n"
        "async def main():\n"
        f"    s = transport({server.url!r}).subscription({READER!r}, [Channel({channel.name!r}, Kind.EVENT)])\n"
        "    await s.open()\n"
        f"    await s.assign(['{channel.name}/{lane_of('key')}'])\n"
        "    print(len((await s.take(10, 10)).records), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"10\n"
        async with member(transport, channel) as subscription:
            os.kill(process.pid, signal.SIGSTOP)
            stopped = time.monotonic()
            batch = None
            while batch is None and time.monotonic() < stopped + 30:
                batch = await subscription.take(10, 0.5)
            seconds = time.monotonic() - stopped
            assert batch is not None
            assert numbers(batch.records)[0] == 0
            assert 1 < seconds < activemq.TRAITS.takeover_seconds
    finally:
        process.kill()
        await process.wait()


async def test_a_broker_that_stands_still_is_away(server: ActiveMQ, transport: activemq.ActiveMq) -> None:
    """It answers nothing and closes nothing: noticed by missing heart-beats."""
    channel = await channel_of(transport, READER)
    async with member(transport, channel) as subscription:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(TransientError):
                await subscription.take(10, 20)
            assert time.monotonic() - started <= 10
            with pytest.raises(TransientError):
                await publish(transport, messages(channel, 1))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await publish(transport, messages(channel, 1)) == [Sent.CONFIRMED]
        assert numbers(await taken(subscription, 1)) == [0]


async def test_nobody_there(transport: activemq.ActiveMq) -> None:
    nobody = activemq.transport(f"stomp://127.0.0.1:{free_port()}")
    channel = Channel("c", Kind.EVENT)
    with pytest.raises(TransientError):
        await nobody.declare([channel], {})
    with pytest.raises(TransientError):
        await nobody.subscription(READER, [channel]).open()
    with pytest.raises(TransientError):
        await publish(nobody, messages(channel, 1))


async def test_large_records_hold_the_broker_back(transport: activemq.ActiveMq) -> None:
    """60 MB wait in one lane: a few MB are in memory, and what is released or given up meanwhile works as ever."""
    channel = await channel_of(transport, READER)
    body = bytes(range(256)) * 3800
    sent = [Message(f"{n}", channel.name, "key", {"id": f"{n}"}, b"%04d" % n + body) for n in range(60)]
    assert set(await publish(transport, sent)) == {Sent.CONFIRMED}
    async with member(transport, channel) as subscription:
        seen: list[int] = []
        while len(seen) < 60:
            batch = await subscription.take(500, 10)
            assert batch is not None
            assert len(batch.records) == 1
            assert subscription._bytes < 5_000_000  # type: ignore[attr-defined]
            if len(seen) == 20:
                await subscription.release(batch)
                batch = await subscription.take(500, 10)
                assert batch is not None
            if len(seen) == 30:
                # While it is held back: receipts come all the same. The lane comes again, from its first unsettled one.
                await subscription.assign([])
                await subscription.assign([f"{channel.name}/{lane_of('key')}"])
                batch = await subscription.take(500, 10)
                assert batch is not None
            seen += [int((record.body or b"")[:4]) for record in batch.records]
            subscription.settle(batch)
        assert seen == list(range(60))


@pytest.mark.parametrize(
    "url", ["stomp://h:x", "stomp://h/vhost", "stomp://h?lane=3", "stomp://h?lanes=0", "stomp://[h"]
)
def test_addresses_that_cannot_be_read(url: str) -> None:
    with pytest.raises(BrokerRefuses, match="The address of ActiveMQ"):
        activemq.transport(url)


def test_what_an_address_says() -> None:
    made = activemq.transport("activemq://us%3Aer:p%40ss@host?lanes=3")
    address = made._address
    assert (address.host, address.port, address.user, address.password) == ("host", 61613, "us:er", "p@ss")
    assert "p@ss" not in repr(address)


async def test_a_wrong_password() -> None:
    """Our own broker has no passwords (without Spring it takes no such setting): this is the frame with which others
    answer (``SimpleAuthenticationBroker``)."""
    answer = (
        b"ERROR\ncontent-type:text/plain\nmessage:User name [me] or password is invalid.\n\n"
        b"java.lang.SecurityException: User name [me] or password is invalid.\n\0"
    )

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\0")
        assert b"\nlogin:me\n" in asked
        assert b"\npasscode:p@ss\n" in asked
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = activemq.transport(f"stomp://me:p%40ss@127.0.0.1:{port}")
        with pytest.raises(BrokerRefuses, match=r"refuses the user 'me'.*correct user and password"):
            await transport.declare([], {})
