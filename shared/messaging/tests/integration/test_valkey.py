"""The Valkey adapter on a real server: what is read again, what is deleted when, and what a broker's death leaves."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from ftgo_local.brokers.valkey import Valkey
from ftgo_local.ports import free_port
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.transport_suite import OnServer, TransportSuite
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Record, Sent
from ftgo_messaging.transports.valkey import ValkeyTransport, transport
from ftgo_messaging.transports.valkey.publisher import ValkeyPublisher
from ftgo_messaging.transports.valkey.subscription import ValkeySubscription
from redis.asyncio import Redis

LANES = 4
READER = "reader"


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def server(place: Path) -> AsyncIterator[Valkey]:
    server = Valkey(place / "valkey", free_port(), password='s:e"c\\r/e@t')
    await server.start()
    yield server
    server.stop()


@pytest.fixture
async def admin(server: Valkey) -> AsyncIterator[Redis]:
    client = Redis(port=server.port, password=server.password, protocol=2)
    yield client
    await client.aclose()


@pytest.fixture
def broker(server: Valkey) -> ValkeyTransport:
    return transport(f"{server.url}?lanes={LANES}")


@pytest.fixture
async def channel(broker: ValkeyTransport) -> Channel:
    channel = Channel(f"test.{new_id()}", Kind.EVENT)
    assert await broker.declare([channel], {channel.name: [READER]}) == [channel.name]
    assert await broker.declare([channel], {channel.name: [READER]}) == []
    return channel


@pytest.fixture
async def publisher(broker: ValkeyTransport) -> AsyncIterator[ValkeyPublisher]:
    publisher = broker.publisher("test publisher")
    yield publisher
    await publisher.close()


Member = Callable[..., Awaitable[ValkeySubscription]]


@pytest.fixture
async def member(channel: Channel) -> AsyncIterator[Member]:
    """Open a member of a consumer that reads all lanes, or some."""
    members = []

    async def open_one(
        broker: ValkeyTransport, consumer: str = READER, lanes: range = range(LANES)
    ) -> ValkeySubscription:
        subscription = broker.subscription(consumer, [channel])
        members.append(subscription)
        await subscription.open()
        await subscription.assign({f"{channel.name}/{lane}" for lane in lanes})
        return subscription

    yield open_one
    for each in members:
        await each.close()


def messages(channel: Channel, *numbers: int, body: bytes = b"{}") -> list[Message]:
    """Of eight keys in turn."""
    return [Message(new_id(), channel.name, f"k{n % 8}", {m.ID: str(n)}, body) for n in numbers]


def number(record: Record) -> int:
    return int(dict(record.headers)[m.ID] or b"-1")


async def read(member: ValkeySubscription, count: int, most: int = 500) -> list[Record]:
    """So many records, settled."""
    found: list[Record] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            batch = await member.take(min(most, count - len(found)), 1.0)
            if batch is not None:
                found += batch.records
                member.settle(batch)
    return found


def in_order(records: list[Record]) -> bool:
    keys = {record.key for record in records}
    return all(
        [number(r) for r in records if r.key == key] == sorted(number(r) for r in records if r.key == key)
        for key in keys
    )


async def connections(admin: Redis) -> int:
    return len([x for x in await admin.client_list() if x["name"]])


async def test_a_message_comes_as_it_was_sent_and_in_order(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    headers = {m.ID: "0", m.CONTENT_TYPE: "application/json", "grüße": "日本 \x00", "long": "x" * 8000}
    whole = Message(new_id(), channel.name, "schlüssel", headers, bytes(range(256)) + b"x" * 900_000)
    assert await publisher.publish([whole, *messages(channel, *range(1, 200))]) == [Sent.CONFIRMED] * 200
    records = await read(await member(broker), 200)
    assert sorted(map(number, records)) == list(range(200))
    assert in_order(records)
    (first,) = [record for record in records if number(record) == 0]
    assert {name: (value or b"").decode() for name, value in first.headers} == headers
    assert (first.key, first.body, first.defect) == ("schlüssel".encode(), whole.body, "")
    assert first.lane == f"{channel.name}/{lane_of('schlüssel', LANES)}"


async def test_each_consumer_gets_everything_and_one_that_comes_late_what_is_kept(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    await publisher.publish(messages(channel, *range(50)))
    assert len(await read(await member(broker), 50)) == 50
    late = await member(broker, "late")
    assert in_order(await read(late, 50, most=7))
    assert await late.take(1, 0.01) is None


async def test_what_was_released_comes_again_first_and_only_what_is_settled_is_over(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    await publisher.publish(messages(channel, *range(40)))
    first = await member(broker)
    batch = await first.take(10, 1.0)
    assert batch is not None
    await publisher.publish(messages(channel, *range(40, 60)))
    await first.release(batch)
    again = [await first.take(4, 1.0) for _ in range(3)]
    assert [r for part in again if part for r in part.records] == list(batch.records)
    assert again[0] is not None
    first.settle(again[0])
    await first.close()
    rest = await read(await member(broker), 56)
    assert not {r.origin for r in again[0].records} & {r.origin for r in rest}
    assert sorted(number(r) for r in [*again[0].records, *rest]) == list(range(60))
    assert in_order([*again[0].records, *rest])


async def test_a_member_that_died_and_one_that_gave_up_its_lanes(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    await publisher.publish(messages(channel, *range(100)))
    dead = await member(broker)
    lost = await dead.take(30, 1.0)
    assert lost is not None
    other = await member(broker)
    same = await other.take(30, 1.0)
    assert same is not None
    assert {r.origin for r in same.records} & {r.origin for r in lost.records}
    other.settle(same)
    out = await other.take(30, 1.0)
    assert out is not None
    await other.assign([])
    other.settle(out)  # too late: somebody else reads these lanes
    rest = await read(await member(broker), 70)
    assert sorted(map(number, [*same.records, *rest])) == list(range(100))


async def test_a_member_that_is_paused_while_it_waits_keeps_nothing_from_its_successor(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    """XREADGROUP would give the next entry to the one that has waited longest, and it would be missing elsewhere."""
    paused = await member(broker)
    waiting = asyncio.create_task(paused.take(10, 20.0))
    successor = await member(broker)
    waiting_too = asyncio.create_task(successor.take(10, 20.0))
    await asyncio.sleep(0.1)
    await publisher.publish(messages(channel, 1))
    got = await waiting_too
    assert got is not None
    assert [number(r) for r in got.records] == [1]
    await waiting


async def test_entries_of_any_shape_come_out(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member, admin: Redis
) -> None:
    key = f"{channel.name}:0"
    await admin.execute_command("XADD", key, "*", "a", "1", "a", "2")
    await admin.execute_command("XADD", key, "*", b"\xff\xfe", b"\x00", "data", "x")
    await admin.execute_command("XADD", key, "*", "data", "x", "data", "y", "partitionkey", "")
    await admin.execute_command("XADD", key, "*", "", "", "data", "")
    await admin.execute_command("XADD", key, "*", "data", b"z" * 3_000_000)
    await admin.execute_command("XADD", key, "*", *[x for n in range(3000) for x in (f"f{n}", "")])
    member_ = await member(broker)
    found = await read(member_, 6)
    assert [(r.key, (r.body or b"")[:2], r.defect) for r in found] == [
        (None, b"", "it has no field data"),
        (None, b"x", "the name of the field \\xff\\xfe is not UTF-8"),
        (b"", b"x", "it has the field data twice"),
        (None, b"", ""),
        (None, b"zz", ""),
        (None, b"", "it has no field data"),
    ]
    assert found[0].headers == [("a", b"1"), ("a", b"2")]
    assert len(found[5].headers) == 3000
    assert len({r.origin for r in found}) == 6


async def test_what_is_refused_and_why(
    server: Valkey, broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher
) -> None:
    nowhere = Channel("nowhere", Kind.EVENT)
    large = messages(channel, 1, body=b"x" * 1_000_000)
    sent = await publisher.publish([*messages(nowhere, 0), *large, *messages(channel, 2)])
    assert sent == [Sent.REFUSED, Sent.REFUSED, Sent.CONFIRMED]
    await broker.declare([nowhere], {})
    assert await publisher.publish(messages(nowhere, 0)) == [Sent.CONFIRMED]
    with pytest.raises(BrokerRefuses, match=r"has 4 lanes at the broker, and we are to use 5: set lanes=4"):
        await transport(f"{server.url}?lanes=5").declare([channel], {})
    with pytest.raises(BrokerRefuses, match="does not let us in"):
        await transport(f"valkey://:wrong@127.0.0.1:{server.port}").declare([channel], {})
    with pytest.raises(BrokerRefuses, match="does not let us in"):
        await transport(f"valkey://127.0.0.1:{server.port}").subscription(READER, [channel]).open()
    with pytest.raises(BrokerRefuses, match="out of range"):
        await transport(f"{server.url}/99").declare([channel], {})
    with pytest.raises(TransientError, match="is away"):
        await transport(f"valkey://127.0.0.1:{free_port()}").declare([channel], {})
    for url in ("valkey://127.0.0.1:x", "valkey://127.0.0.1?lanes=0", "valkey://127.0.0.1?lane=3", "http://127.0.0.1"):
        with pytest.raises(BrokerRefuses, match="URL"):
            transport(url)


async def test_an_entry_is_deleted_when_every_group_has_handled_it(
    server: Valkey, channel: Channel, publisher: ValkeyPublisher, member: Member, admin: Redis
) -> None:
    broker = transport(f"{server.url}?lanes={LANES}&keep=0")
    slow, fast = await member(broker, "slow"), await member(broker)
    await publisher.publish(messages(channel, *range(4000)))

    async def kept() -> int:
        return sum([await admin.xlen(f"{channel.name}:{lane}") for lane in range(LANES)])

    async def cut(member: ValkeySubscription) -> None:
        await member._tell()
        member._look_at = 0.0
        await member.take(1, 0.0)

    await read(fast, 4000)
    await cut(fast)
    assert await kept() == 4000
    assert in_order(await read(slow, 4000))
    await asyncio.sleep(1.1)  # the server's clock is asked in whole seconds
    await cut(slow)
    assert await kept() < 4 * 200  # whole nodes of a stream are deleted, of about a hundred entries
    assert set((await slow.backlog()).values()) == {0}


async def test_backlog_counts_what_is_not_settled(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    await publisher.publish(messages(channel, *range(100)))
    for consumer in (READER, "late"):
        reader = await member(broker, consumer)
        assert sum(n or 0 for n in (await reader.backlog()).values()) == 100
        await read(reader, 60)
        in_hand = await reader.take(20, 1.0)
        assert in_hand is not None
        await reader._tell()
        found = await reader.backlog()
        assert set(found) == {f"{channel.name}/{lane}" for lane in range(LANES)}
        assert None not in found.values()
        assert sum(n or 0 for n in found.values()) == 40
        reader.settle(in_hand)


async def test_a_take_is_bounded_in_bytes_and_serves_every_lane(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    await publisher.publish(messages(channel, *range(64), body=b"x" * 300_000))
    reader = await member(broker)
    seen: list[Record] = []
    lanes: list[str] = []
    while batch := await reader.take(500, 0.0):
        assert sum(len(r.body or b"") for r in batch.records) <= 1_000_000
        seen += batch.records
        lanes.append(batch.records[0].lane)
        reader.settle(batch)
    assert len(seen) == 64
    assert in_order(seen)
    assert len(set(lanes[:4])) > 1


async def test_a_full_memory_refuses_and_drops_nothing(
    server: Valkey, channel: Channel, member: Member, admin: Redis
) -> None:
    broker = transport(f"{server.url}?lanes={LANES}&keep=0")
    reader = await member(broker)
    publisher = broker.publisher("full")
    await admin.config_set("maxmemory", 8_000_000)
    sent: list[Sent] = []
    while Sent.REFUSED not in sent:
        assert len(sent) < 1000
        sent += await publisher.publish(messages(channel, *range(len(sent), len(sent) + 8), body=b"x" * 50_000))
    confirmed = [i for i, fate in enumerate(sent) if fate is Sent.CONFIRMED]
    await reader.close()
    reader = await member(broker)  # a consumer that is started anew has to get in, or nothing would ever be read
    assert sorted(map(number, await read(reader, len(confirmed)))) == confirmed
    await reader._tell()

    async def goes_on() -> None:
        publisher._cut_at = 0.0
        assert await publisher.publish(messages(channel, 5000)) == [Sent.CONFIRMED]

    await eventually(goes_on)
    await publisher.close()


async def test_a_broker_that_was_killed_has_everything_that_was_confirmed(
    server: Valkey, broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    reader = await member(broker)
    confirmed = []
    for begin in range(0, 1000, 50):
        sent = await publisher.publish(messages(channel, *range(begin, begin + 50)))
        confirmed += [begin + i for i, fate in enumerate(sent) if fate is Sent.CONFIRMED]
    assert len(confirmed) == 1000
    before = await read(reader, 400)
    await reader._tell()
    out = await reader.take(100, 1.0)
    assert out is not None
    server.kill()
    with pytest.raises(TransientError):
        await publisher.publish(messages(channel, 1000))
    with pytest.raises(TransientError):
        await reader.take(1, 1.0)
    assert set((await reader.backlog()).values()) == {None}
    reader.settle(out)  # of an earlier connection
    await server.start()
    rest = await read(reader, 600)
    assert sorted(map(number, [*before, *rest])) == confirmed
    assert in_order([*before, *rest])
    assert await publisher.publish(messages(channel, 1000)) == [Sent.CONFIRMED]
    await reader._tell()
    assert [number(r) for r in await read(await member(broker), 1)] == [1000]


async def test_a_broker_that_dies_while_somebody_waits(
    server: Valkey, broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    reader = await member(broker)
    waiting = asyncio.create_task(reader.take(1, 30.0))
    await asyncio.sleep(0.1)
    server.kill()
    with pytest.raises(TransientError):
        await waiting
    await server.start()
    assert await publisher.publish(messages(channel, 7)) == [Sent.CONFIRMED]
    assert [number(r) for r in await read(reader, 1)] == [7]


async def test_a_broker_that_still_reads_its_file_is_away(
    server: Valkey, broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member
) -> None:
    await publisher.publish(messages(channel, *range(8000)))
    reader = await member(broker)
    server.kill()
    server.extra_settings = ["key-load-delay 200"]  # microseconds; connections are served after each 1024 commands
    starting = asyncio.create_task(server.start())
    errors: list[str] = []

    async def both() -> None:
        for attempt in (reader.take(1, 0.0), publisher.publish(messages(channel, 1))):
            try:
                await attempt
            except TransientError as error:
                errors.append(str(error))
        assert any("BusyLoadingError" in error for error in errors) or starting.done()

    await eventually(both)
    await starting
    assert any("BusyLoadingError" in error for error in errors), errors
    assert len(await read(reader, 8000)) == 8000


async def test_streams_that_the_broker_has_lost_are_made_anew(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member, admin: Redis
) -> None:
    reader = await member(broker)
    await publisher.publish(messages(channel, *range(20)))
    batch = await reader.take(10, 1.0)
    assert batch is not None
    await admin.flushall()
    assert await publisher.publish(messages(channel, 20)) == [Sent.REFUSED]
    reader.settle(batch)
    await reader._tell()
    assert await reader.take(10, 0.0) is None
    assert await publisher.publish(messages(channel, *range(30))) == [Sent.CONFIRMED] * 30
    assert sorted(map(number, await read(reader, 30))) == list(range(30))
    await reader._tell()
    assert set((await reader.backlog()).values()) == {0}
    # Before a member that has just got its lanes looks for the first time.
    await reader.assign([])
    await reader.assign([f"{channel.name}/0"])
    await admin.flushall()
    with pytest.raises(TransientError, match="made anew"):
        await reader.take(10, 0.0)
    assert await reader.take(10, 0.0) is None
    assert await publisher.publish(messages(channel, 1)) == [Sent.CONFIRMED]


async def test_settings_that_lose_messages_are_told(
    broker: ValkeyTransport, channel: Channel, admin: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    await broker.declare([channel], {})
    assert "server.settings" not in capsys.readouterr().out
    await admin.config_set("appendonly", "no")
    await admin.config_set("maxmemory-policy", "allkeys-lru")
    await broker.declare([channel], {})
    assert capsys.readouterr().out.count("server.settings") == 2


async def test_cancellations_lose_no_record_and_leave_no_connection(
    broker: ValkeyTransport, channel: Channel, publisher: ValkeyPublisher, member: Member, admin: Redis
) -> None:
    reader = await member(broker)
    found: list[Record] = []
    confirmed: set[int] = set()
    for n in range(100):
        taking = asyncio.create_task(reader.take(10, 5.0))
        publishing = asyncio.create_task(publisher.publish(messages(channel, n)))
        await asyncio.sleep(0.0002 * (n % 20))
        for task in (taking, publishing):
            task.cancel()
        results = await asyncio.gather(taking, publishing, return_exceptions=True)
        if results[0] and not isinstance(results[0], BaseException):
            found += results[0].records
            reader.settle(results[0])
        if results[1] == [Sent.CONFIRMED]:
            confirmed.add(n)
    while batch := await reader.take(100, 0.2):
        found += batch.records
        reader.settle(batch)
    assert confirmed <= set(map(number, found))
    assert len(found) == len({r.origin for r in found})
    assert in_order(found)

    async def few() -> None:
        assert await connections(admin) <= 3

    await eventually(few)
    await reader.close()
    await publisher.close()

    async def none() -> None:
        assert await connections(admin) == 0

    await eventually(none)
    assert not [t for t in asyncio.all_tasks() if "_tell" in repr(t)]


@pytest.fixture(scope="module")
async def subject() -> AsyncIterator[OnServer]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    server = Valkey(path / "valkey", free_port())
    await server.start()
    yield OnServer(server, transport)
    server.stop()
    shutil.rmtree(path, ignore_errors=True)


class TestSuite(TransportSuite):
    pass
