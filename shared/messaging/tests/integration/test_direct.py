"""No broker: the conformance suite, with an outbox in memory before the publisher; and what only this transport has."""

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import h11
import msgspec
import pytest
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.service import running_on
from ftgo_messaging.testing.suite.demands import record
from ftgo_messaging.testing.suite.judging import disorder, id_of, message, messages, missing
from ftgo_messaging.testing.suite.members import Action, Member, lanes_of
from ftgo_messaging.testing.suite.scene import TABLES, Steps, out_of_order, service_process, tables
from ftgo_messaging.testing.transport_suite import TransportSuite
from ftgo_messaging.transaction.transactions import Operation
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports import direct, transport_at
from ftgo_messaging.transports.cloudevents import to_envelope
from ftgo_messaging.transports.direct.publisher import DirectPublisher
from ftgo_messaging.transports.direct.registry import Registry, RegistryFile, registry_at
from ftgo_messaging.transports.direct.subscription import BATCH_TYPE, DirectSubscription
from ftgo_messaging.transports.port import BrokerRefuses, Publisher, Sent


@pytest.fixture
def registry() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-")) / "registry.json"
    path.write_text("{}")
    yield path
    shutil.rmtree(path.parent, ignore_errors=True)


def give_addresses(path: Path, consumers: Collection[str], each: int = 1) -> None:
    """To those that have none."""
    known = msgspec.json.decode(path.read_bytes(), type=Registry)
    for consumer in consumers:
        known.consumers.setdefault(consumer, [f"http://127.0.0.1:{free_port()}" for _ in range(each)])
    path.write_bytes(msgspec.json.encode(known))


# -- the suite ---------------------------------------------------------------------------------------------------------


class Outbox:
    """As ``Delivery`` does it, in memory: a message that was not confirmed holds the later ones of its key."""

    def __init__(self, publisher: DirectPublisher, registry: RegistryFile) -> None:
        self._publisher = publisher
        self._registry = registry
        self._rows: list[Message] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._relay(), name="relay")

    async def publish(self, sending: Sequence[Message]) -> Sequence[Sent]:
        """Confirms what is in the outbox; the publisher itself refuses what can never be sent."""
        await asyncio.sleep(0)
        known = self._registry.read().channels
        sent = []
        for each in sending:
            if each.channel in known and len(each.body) <= direct.TRAITS.max_bytes:
                sent.append(Sent.CONFIRMED)
                self._rows.append(each)
            else:
                sent += await self._publisher.publish([each])
        self._more.set()
        return sent

    async def _relay(self) -> None:
        while True:
            rows = self._rows[:500]
            if not rows:
                self._more.clear()
                await self._more.wait()
                continue
            outcomes = await self._publisher.publish(rows)
            blocked: set[tuple[str, str]] = set()
            left = []
            for row, how in zip(rows, outcomes, strict=True):
                if how is not Sent.CONFIRMED:
                    blocked.add((row.channel, row.key))
                if (row.channel, row.key) in blocked:
                    left.append(row)
            self._rows[: len(rows)] = left
            if left:
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._publisher.close()


class WithOutbox(direct.DirectTransport):
    __module__ = direct.__name__  # the suite's processes take the package of their transport from it

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(registry_at(url))
        self._path = path

    def publisher(self, client: str) -> Publisher:  # type: ignore[override]
        return Outbox(super().publisher(client), self._registry)

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        give_addresses(self._path, [name for names in readers.values() for name in names], each=6)
        return await super().declare(channels, readers)


class InNoBroker:
    """There is no server that could be killed."""

    traits = direct.TRAITS
    kill: Action | None = None
    start: Action | None = None
    stop: Action | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url: str | None = f"http+static://{path}"

    def transport(self) -> WithOutbox:
        return WithOutbox(self.url or "", self._path)


@pytest.mark.slow
@pytest.mark.brokers
class TestDirect(TransportSuite):
    @pytest.fixture
    def subject(self, registry: Path) -> InNoBroker:
        return InNoBroker(registry)


# -- what only this transport has --------------------------------------------------------------------------------------

READER, OTHER = "reader", "other"


class Place:
    """Two consumers; the channel ``both`` is read by both, ``one`` by the reader alone."""

    def __init__(self, path: Path) -> None:
        give_addresses(path, [READER, OTHER])
        self.path = path
        self.url = f"http+static://{path}"
        self.both, self.one = Channel("both", Kind.EVENT), Channel("one", Kind.COMMAND, key=str)
        self.ends = contextlib.AsyncExitStack()

    def publisher(self) -> DirectPublisher:
        publisher = direct.transport(self.url).publisher("test")
        self.ends.push_async_callback(publisher.close)
        return publisher

    async def member(self, consumer: str = READER, *, lanes: bool = True) -> Member:
        channels = [self.both, self.one] if consumer == READER else [self.both]
        member = Member(direct.transport(self.url), consumer, channels, [])
        await member.subscription.open()
        self.ends.push_async_callback(member.end)
        await member.assign(lanes_of(channels) if lanes else [])
        return member

    def address(self, consumer: str = READER) -> tuple[str, int]:
        return RegistryFile(self.path, 12).read().addresses(consumer)[0]

    async def post(self, data: bytes) -> bytes:
        """What the reader answers to these bytes, until it closes or is silent for a second."""
        reader, writer = await asyncio.open_connection(*self.address())
        writer.write(data)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1):
                while part := await reader.read(65536):
                    answer += part
        writer.transport.abort()
        return answer


@pytest.fixture
async def place(registry: Path) -> AsyncIterator[Place]:
    place = Place(registry)
    declaring = direct.transport(place.url)
    assert await declaring.declare([place.both, place.one], {"both": [READER, OTHER], "one": [READER]}) == [
        "both",
        "one",
    ]
    assert await declaring.declare([place.both, place.one], {"both": [READER, OTHER], "one": [READER]}) == []
    async with place.ends:
        yield place


async def committed(publisher: DirectPublisher, sent: Sequence[Message], *members: Member) -> list[Sent]:
    """Publish while the members handle."""
    publishing = asyncio.create_task(publisher.publish(sent))
    while not publishing.done():
        for member in members:
            await member.handle(wait=0.01)
    return list(publishing.result())


async def test_confirmed_only_when_every_consumer_has_committed(place: Place) -> None:
    """One is away: its keys are unknown, others are not held. The one that is there gets them once, and once more from
    a sender that was started anew."""
    publisher, reader = place.publisher(), await place.member()
    sent = [*messages(place.both, "entity", range(3)), *messages(place.one, "entity", range(3))]
    assert await committed(publisher, sent, reader) == [Sent.UNKNOWN] * 3 + [Sent.CONFIRMED] * 3
    assert await committed(publisher, sent[:3], reader) == [Sent.UNKNOWN] * 3
    assert missing(sent, reader.log) == []
    assert len(reader.log) == 6
    other = await place.member(OTHER)
    assert await committed(publisher, sent[:3], reader, other) == [Sent.CONFIRMED] * 3
    assert (len(reader.log), len(other.log)) == (6, 3)
    assert await committed(place.publisher(), sent[:3], reader, other) == [Sent.CONFIRMED] * 3
    assert [r.origin for r in other.log[:3]] == [r.origin for r in other.log[3:]]
    assert len(reader.log) == 9


async def test_not_confirmed_before_it_is_settled(place: Place) -> None:
    publisher, reader = place.publisher(), await place.member()
    publishing = asyncio.create_task(publisher.publish(messages(place.one, "entity", range(4))))
    batch = await reader.taken(4)
    await reader.subscription.release(batch)
    batch = await reader.taken(3)
    reader.subscription.settle(batch)
    batch = await reader.taken(3)
    done, _ = await asyncio.wait({publishing}, timeout=0.3)
    assert not done
    reader.subscription.settle(batch)
    assert await publishing == [Sent.CONFIRMED] * 4


async def test_nothing_of_a_key_overtakes_what_was_refused(place: Place) -> None:
    publisher, reader = place.publisher(), await place.member()
    large = message(place.one, "a", 0, body=b"x" * 1_000_001)
    sent = [large, *messages(place.one, "a", [1]), *messages(place.one, "b", [1])]
    assert await committed(publisher, sent, reader) == [Sent.REFUSED, Sent.UNKNOWN, Sent.CONFIRMED]
    assert [r.key for r in reader.log] == [b"b"]


async def test_a_clean_stop_answers_what_is_settled(place: Place) -> None:
    publisher, reader = place.publisher(), await place.member()
    sent = messages(place.one, "entity", range(10))
    publishing = asyncio.create_task(publisher.publish(sent))
    await reader.handle(4, wait=5)
    await reader.taken(3)
    await reader.end()
    assert await publishing == [Sent.CONFIRMED] * 4 + [Sent.UNKNOWN] * 6
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*place.address())
    assert await publisher.publish(sent[4:]) == [Sent.UNKNOWN] * 6
    again = await place.member()
    assert await committed(publisher, sent[4:], again) == [Sent.CONFIRMED] * 6
    assert [id_of(r) for r in again.log] == [x.id for x in sent[4:]]


async def test_a_sender_that_is_cut_off(place: Place) -> None:
    """What nobody has taken is dropped; what is in hand is settled for nobody. The repetition keeps the order."""
    publisher, reader = place.publisher(), await place.member()
    sent = messages(place.one, "entity", range(20))
    cut = asyncio.create_task(publisher.publish(sent))
    batch = await reader.taken(5)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)

    async def dropped() -> None:
        assert sum((await reader.subscription.backlog()).values()) == 0  # type: ignore[arg-type]

    await eventually(dropped)
    reader.log += batch.records
    reader.subscription.settle(batch)
    assert await committed(place.publisher(), sent, reader) == [Sent.CONFIRMED] * 20
    assert [id_of(r) for r in reader.log] == [x.id for x in [*sent[:5], *sent]]
    assert disorder(reader.log) == 0


async def test_a_sender_that_was_killed(place: Place) -> None:
    """A process that posts, and dies before it has its answer; another one sends what is in the outbox."""
    reader = await place.member()
    sent = messages(place.one, "entity", range(10))
    program = (
        "import asyncio, sys, msgspec\n"
        "from ftgo_messaging.messages.message import Message\n"
        "from ftgo_messaging.transports.direct import transport\n"
        "sent = msgspec.json.decode(sys.argv[2], type=list[Message])\n"
        "asyncio.run(transport(sys.argv[1]).publisher('dies').publish(sent))\n"
    )
    rows = msgspec.json.encode(sent[:6]).decode()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, place.url, rows)
    batch = await reader.taken(2)
    process.kill()
    await process.wait()
    reader.log += batch.records
    reader.subscription.settle(batch)
    assert await committed(place.publisher(), sent, reader) == [Sent.CONFIRMED] * 10
    assert missing(sent, reader.log) == []
    assert disorder(reader.log) == 0


async def test_a_consumer_that_is_killed_with_a_real_outbox_before_it(place: Place, postgres: Postgres) -> None:
    """The outbox in PostgreSQL and its relay, which is started anew as well: each step is made once, in order."""
    dsn = (await postgres.create_service_databases(["direct"]))["direct"]
    steps = Steps(Channel(place.one.name, Kind.COMMAND, key=lambda command: str(command.key)))
    numbered = [(f"entity-{i}", n) for n in range(40) for i in range(25)]

    def sending(part: Sequence[tuple[str, int]]) -> Operation[None]:
        async def send(uow: UnitOfWork) -> None:
            for entity, n in part:
                uow.send(steps.type(key=entity, entity=entity, number=n))

        return Operation(send)

    def process(member: str) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return service_process(url=place.url, dsn=dsn, consumer=READER, channel=place.one.name, member=member)

    async with tables(dsn) as engine:

        async def done(count: int) -> None:
            assert len(await steps.done(engine)) >= count

        async with process("a") as killed:
            for part in (numbered[:200], numbered[200:600]):
                async with running_on(dsn, direct.transport(place.url), TABLES, []) as service:
                    await service.run_operation(sending(part))
                    await eventually(lambda: done(100), within=30)
            killed.kill()
        async with running_on(dsn, direct.transport(place.url), TABLES, []) as service:
            await service.run_operation(sending(numbered[600:]))
            async with process("b"):
                await eventually(lambda: done(1000), within=60)
                made = await steps.done(engine)
    assert (len(made), sorted(made), out_of_order(made)) == (1000, sorted(numbered), 0)


async def test_a_round_trip(place: Place) -> None:
    """From publish to the confirmation, with a receiver that settles at once; and many in one publish."""
    publisher, reader = place.publisher(), await place.member()

    async def handle() -> None:
        while True:
            await reader.handle(wait=10)

    handling, clock, times = asyncio.create_task(handle()), asyncio.get_running_loop().time, []
    for n in range(500):
        began = clock()
        assert await publisher.publish(messages(place.one, "entity", [n])) == [Sent.CONFIRMED]
        times.append(clock() - began)
    many = [x for i in range(100) for x in messages(place.one, f"entity-{i}", range(5))]
    began = clock()
    assert set(await publisher.publish(many)) == {Sent.CONFIRMED}
    rate, (p50, p99) = len(many) / (clock() - began), (sorted(times)[n] * 1000 for n in (250, 495))
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    figure = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; {rate:.0f}/s in one publish of 500"
    record(InNoBroker(place.path), "round_trip", figure)
    print(figure)
    assert p50 < 50


async def test_a_member_that_reads_nothing_yet(place: Place) -> None:
    publisher, reader = place.publisher(), await place.member(lanes=False)
    assert await publisher.publish(messages(place.one, "entity", range(2))) == [Sent.UNKNOWN] * 2
    await reader.assign(lanes_of([place.both, place.one]))
    assert await committed(publisher, messages(place.one, "entity", range(2)), reader) == [Sent.CONFIRMED] * 2


async def test_a_receiver_that_says_nothing_holds_up_nobody_for_long(place: Place) -> None:
    """As one that is paused: after it was waited for once, it is left alone for a while."""
    publisher, reader = place.publisher(), await place.member()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to its end
        writer.close()

    silent = await asyncio.start_server(say_nothing, *place.address(OTHER))
    for within in (2.0, 0.4):
        began = asyncio.get_running_loop().time()
        sent = [*messages(place.both, new_id(), range(2)), *messages(place.one, new_id(), range(2))]
        assert await committed(publisher, sent, reader) == [Sent.UNKNOWN] * 2 + [Sent.CONFIRMED] * 2
        assert asyncio.get_running_loop().time() - began < within
    silent.close()


async def test_a_receiver_whose_handler_fails_holds_up_nobody_for_long(place: Place) -> None:
    """As one without its database: its batches are released and tried again. Then it is suspect, and waited for less;
    a batch that is at work for long is waited for."""
    publisher, reader, other = place.publisher(), await place.member(), await place.member(OTHER)
    ending = asyncio.Event()

    async def fail() -> None:
        while not ending.is_set():
            if batch := await other.take(wait=0.05):
                await other.subscription.release(batch)
                await asyncio.sleep(0.05)

    failing = asyncio.create_task(fail())
    sent = [*messages(place.both, "entity", range(2)), *messages(place.one, "entity", range(2))]
    for within in (3.5, 0.5):
        began = asyncio.get_running_loop().time()
        assert await committed(publisher, sent, reader) == [Sent.UNKNOWN] * 2 + [Sent.CONFIRMED] * 2
        assert asyncio.get_running_loop().time() - began < within
    ending.set()
    await failing
    publisher = place.publisher()
    publishing = asyncio.create_task(publisher.publish(sent[:2]))
    batch = await other.taken()
    await asyncio.gather(asyncio.sleep(3.5), reader.handle(wait=1))
    other.subscription.settle(batch)
    assert await publishing == [Sent.CONFIRMED] * 2


async def test_a_slow_receiver_pushes_back(place: Place) -> None:
    """With 4 MB in its memory it takes no more, and says so; afterwards everything arrives."""
    reader = await place.member()
    senders = [place.publisher() for _ in range(8)]
    sent = [[_large(place.one, f"{i}-{n}") for n in range(6)] for i in range(8)]
    publishing = [asyncio.create_task(s.publish(part)) for s, part in zip(senders, sent, strict=True)]
    await asyncio.wait(publishing, timeout=2)
    subscription = reader.subscription
    assert isinstance(subscription, DirectSubscription)
    assert 3_000_000 < subscription._bytes < 6_100_000
    while not all(task.done() for task in publishing):
        await reader.handle(wait=0.05)
    refused = [how for task in publishing for how in task.result() if how is not Sent.CONFIRMED]
    assert refused
    for sender, part in zip(senders, sent, strict=True):
        assert set(await committed(sender, part, reader)) == {Sent.CONFIRMED}
    assert missing([x for part in sent for x in part], reader.log) == []
    assert subscription._bytes == 0


def _large(channel: Channel, key: str) -> Message:
    return message(channel, key, 0, body=b"x" * 200_000)


def _http(body: bytes, target: str = "/reader/one", method: str = "POST", **headers: str) -> bytes:
    given = {"host": "x", "content_type": BATCH_TYPE, "content_length": str(len(body)), "connection": "close"}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {**given, **headers}.items()]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode() + body


NONSENSE = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    (b"GET\r\n\r\n", b"400"),
    (b"POST /reader/one HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
    (b"POST /reader/one HTTP/1.1\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n", b"4"),
    (_http(b"[]", target="/"), b"404"),
    (_http(b"[]", target="/other/both"), b"404"),
    (_http(b"[]", method="PUT"), b"405"),
    (_http(b"[]", content_type="text/plain"), b"415"),
    (_http(b"[]", content_length="2000001"), b"413"),
    (_http(b"", content_length="9" * 30), b"4"),
    (_http(b"["), b"400"),
    (_http(b"\xff\xfe"), b"400"),
    (_http(b"{}"), b"400"),
    (_http(b"[" * 500_000), b"400"),
    (_http(b'[{"id":"\\ud800","data_base64":""}]'), b"400"),
    (_http(b"[" + b",".join([b"0"] * 1001) + b"]"), b"413"),
    (_http(b"[]"), b"200"),
]


@pytest.mark.parametrize(("data", "status"), NONSENSE, ids=range(len(NONSENSE)))
async def test_what_strangers_send_is_answered_and_ends_nothing(place: Place, data: bytes, status: bytes) -> None:
    publisher, reader = place.publisher(), await place.member()
    assert (await place.post(data)).startswith(b"HTTP/1.1 " + status)
    assert await committed(publisher, messages(place.one, "entity", range(2)), reader) == [Sent.CONFIRMED] * 2
    assert len(reader.log) == 2


async def test_events_of_any_shape_come_out(place: Place) -> None:
    reader = await place.member()
    good = to_envelope(messages(place.one, "entity", [1])[0])
    odd = [b"0", b"null", b'"x"', b"[[]]", b'{"id":"1"}', b'{"id":1,"data":{}}', b'{"data_base64":"%"}', good]
    odd.append(b'{"data_base64":"","partitionkey":""}')
    posting = asyncio.create_task(place.post(_http(b"[" + b", ".join(odd) + b"]")))
    while len(reader.log) < len(odd):
        await reader.handle(wait=1)
    assert (await posting).startswith(b"HTTP/1.1 200")
    assert sorted(b"-" if r.key is None else r.key for r in reader.log) == [b"", *[b"-"] * 7, b"entity"]
    assert sum(bool(r.defect) for r in reader.log) == 7
    assert len({r.origin for r in reader.log}) == len(odd)


async def test_what_is_refused_and_why(place: Place) -> None:
    def at(path: Path | str, options: str = "") -> direct.DirectTransport:
        return direct.transport(f"http+static://{path}{options}")

    both = {"both": [READER]}
    for url in ("http+static://host/x", "http+static:///", "http+static:///x?lanes=0", "http+static:///x?lane=3"):
        with pytest.raises(BrokerRefuses, match=r"in the URL|is no URL of a registry"):
            direct.transport(url)
    with pytest.raises(BrokerRefuses, match=r"cannot be read .*: write the file first"):
        await at("/nowhere/registry.json").declare([place.both], both)
    with pytest.raises(TransientError, match="cannot be read"):
        await at("/nowhere/registry.json").publisher("x").publish(messages(place.one, "entity", [1]))
    with pytest.raises(BrokerRefuses, match=r"says 12 lanes .* set lanes=12 in the URL"):
        await at(place.path, "?lanes=5").declare([place.both], both)
    with pytest.raises(BrokerRefuses, match="has no address for the consumer stranger: add it"):
        await at(place.path).declare([place.both], {"both": ["stranger"]})
    with pytest.raises(BrokerRefuses, match="the channel one has no reader other: declare it first"):
        await at(place.path).subscription(OTHER, [place.one]).open()
    await place.member()
    with pytest.raises(BrokerRefuses, match=r"No address of reader .* is free on this host .*: other processes listen"):
        await place.member()
    for content, why in ((b"[", "is no registry"), (b'{"consumers": {"x": ["ftp://x"]}}', "is no address")):
        path = place.path.with_name("other.json")
        path.write_bytes(content)
        with pytest.raises(BrokerRefuses, match=why):
            await at(path).declare([], {})
    for url in (place.url, f"http+static://localhost{place.path}?lanes=12"):
        transport = transport_at(url)
        assert isinstance(transport, direct.DirectTransport)
        assert await transport.declare([place.both], both) == []


async def test_the_client_and_the_server_speak_plain_http(place: Place) -> None:
    """Another program can post: one CloudEvent in a batch, and read which of them are committed."""
    reader = await place.member()
    event = b'{"specversion":"1.0","id":"7","source":"curl","type":"t","partitionkey":"k","data_base64":"e30="}'
    posting = asyncio.create_task(place.post(_http(b"[" + event + b"]")))
    assert await reader.handle(wait=5)
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    http.receive_data(await posting)
    response, data = http.next_event(), http.next_event()
    assert isinstance(response, h11.Response)
    assert isinstance(data, h11.Data)
    assert (response.status_code, bytes(data.data)) == (200, b"[0]")
    assert (reader.log[0].key, reader.log[0].body) == (b"k", b"{}")
