"""The SQS adapter on ElasticMQ, an emulation of the AWS API: it shows the adapter, and nothing of AWS itself."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from ftgo_local.brokers.elasticmq import ElasticMQ
from ftgo_local.ports import free_port
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.demands import complete
from ftgo_messaging.testing.suite.faults import Faults
from ftgo_messaging.testing.suite.judging import id_of, message, messages, missing
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.testing.transport_suite import OnServer, TransportSuite
from ftgo_messaging.transports.aws import transport
from ftgo_messaging.transports.aws.client import Link
from ftgo_messaging.transports.aws.sqs.lane import Held, Lane
from ftgo_messaging.transports.aws.sqs.queues import look
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Sent

pytestmark = [pytest.mark.slow, pytest.mark.brokers]


class Emulation(OnServer):
    """ElasticMQ holds everything in memory, and with its storage on it forgets the order: nothing survives its end."""

    def __init__(self, server: ElasticMQ) -> None:
        super().__init__(server, transport)
        self.server = server
        self.traits = replace(self.traits, name="sqs, emulated by ElasticMQ,", persistent=False)


class Paused(Emulation):
    """What is away here is a server that stands still (SIGSTOP), and keeps what it has."""

    def __init__(self, server: ElasticMQ) -> None:
        super().__init__(server)
        self.traits = replace(self.traits, persistent=True)
        self.start = self.go_on

    async def kill(self) -> None:
        self._tell(signal.SIGSTOP)

    async def go_on(self) -> None:
        self._tell(signal.SIGCONT)

    def _tell(self, what: signal.Signals) -> None:
        assert self.server.pid is not None
        os.kill(self.server.pid, what)


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
    waiting = 50_000  # the emulation takes some hundreds in a second
    most_growth = 25_000_000


class TestAway:
    """Of the suite's faults what a server can show that is not killed."""

    away_seconds = 5.0

    @pytest.fixture
    async def wire(self, server: ElasticMQ) -> AsyncIterator[Wire]:
        wire = Wire(Paused(server))
        yield wire
        await wire.close()

    async def test_a_server_that_stands_still(self, wire: Wire) -> None:
        await Faults.test_broker_away(self, wire)  # type: ignore[arg-type]


@pytest.fixture
async def wire(subject: Emulation) -> AsyncIterator[Wire]:
    wire = Wire(subject)
    yield wire
    await wire.close()


@pytest.fixture
async def link(server: ElasticMQ) -> AsyncIterator[Link]:
    link = Link(transport(server.url)._address, "sqs", "test")
    yield link
    await link.close()


async def test_what_is_sent_again_comes_again(wire: Wire) -> None:
    """SQS would swallow it for five minutes, if it had the same MessageDeduplicationId: here the library decides."""
    channel = await wire.channel("reader")
    reader = await wire.member("reader", channel)
    sent = messages(channel, "entity", range(3))
    await wire.publish(sent)
    await wire.publish(sent)

    async def twice() -> None:
        await reader.handle(wait=0.1)
        assert [id_of(record) for record in reader.log] == [x.id for x in sent] * 2

    await eventually(twice, within=30)
    assert len({record.origin for record in reader.log}) == 6


async def test_two_messages_with_one_id_and_one_body_both_come(wire: Wire) -> None:
    """Ids count together with their source."""
    channel = await wire.channel("reader")
    reader = await wire.member("reader", channel)
    one = message(channel, "entity", 1, source="urn:one")
    other = replace(one, headers={**one.headers, "source": "urn:other"})
    await wire.publish([one, other])

    async def both() -> None:
        await reader.handle(wait=0.1)
        assert [dict(record.headers)["source"] for record in reader.log] == [b"urn:one", b"urn:other"]

    await eventually(both, within=30)


async def test_characters_that_sqs_does_not_take_arrive(wire: Wire) -> None:
    channel = await wire.channel("reader")
    reader = await wire.member("reader", channel)
    odd = "\ufffe \uffff \x00 \x1f \x7f \\ufffe 🐎"
    sent = message(channel, f"key {odd}", 1, body=bytes(range(256)), odd=odd)
    await wire.publish([sent])
    await wire.receive(reader, [sent])
    assert [(r.key, dict(r.headers)["odd"], r.body) for r in reader.log] == [
        (sent.key.encode(), odd.encode(), sent.body)
    ]


async def test_what_is_no_cloudevent_comes_with_its_defect(wire: Wire, link: Link) -> None:
    channel = await wire.channel("reader")
    reader = await wire.member("reader", channel)
    bodies = ["no JSON", "[]", '{"id": 1}', '{"data_base64": "%"}', '{"id": "1"}', '{"data_base64": ""}', "🐎"]
    url = (await look(link, channel.name)).readers[wire.name("reader")][0]
    for i, body in enumerate(bodies):
        await link.ask(
            "send_message", QueueUrl=url, MessageBody=body, MessageGroupId="0", MessageDeduplicationId=f"{new_id()}{i}"
        )

    async def all_came() -> None:
        await reader.handle(wait=0.1)
        assert len(reader.log) == len(bodies)

    await eventually(all_came, within=30)
    assert [bool(record.defect) for record in reader.log] == [True, True, True, True, True, False, True]
    kept = [*bodies[:5], bodies[6]]
    assert [record.body for record in reader.log if record.defect] == [body.encode() for body in kept]
    assert len({record.origin for record in reader.log}) == len(bodies)


async def test_a_member_that_is_paused_keeps_its_lane_and_nothing_overtakes(wire: Wire) -> None:
    """Its successor waits for what it has in hand, and then gets that first."""
    channel = await wire.channel("reader")
    paused = await wire.member("reader", channel)
    sent = messages(channel, "entity", range(30))
    await wire.publish(sent)
    in_hand = await paused.taken(10, 30)
    successor = await wire.member("reader", channel)
    assert await successor.take(wait=2.0) is None
    await wire.receive(successor, sent)
    complete(sent, successor.log)
    assert [r.origin for r in successor.log[: len(in_hand.records)]] == [r.origin for r in in_hand.records]
    paused.subscription.settle(in_hand)  # too late: the handles are others now, and everything is handled
    await wire.publish(more := messages(channel, "entity", range(30, 33)))
    await paused.assign([])
    await wire.receive(successor, more)
    complete([*sent, *more], successor.log)


async def test_what_waited_in_memory_for_too_long_is_not_taken(wire: Wire) -> None:
    channel = await wire.channel("reader")
    reader = await wire.member("reader", channel)
    sent = messages(channel, "entity", range(5))
    await wire.publish(sent)
    first = await reader.taken(1, 30)
    await reader.subscription.release(first)
    lane = next(lane for lane in reader.subscription._lanes.values() if lane.held)  # type: ignore[attr-defined]
    handles = [held.handle for held in lane.held]
    lane.until = 0.0  # as after a pause of this process
    again = await reader.taken(500, 40)
    given: dict[Lane, list[Held]] = again.receipt  # type: ignore[assignment]
    assert handles
    assert not {held.handle for taken in given.values() for held in taken} & set(handles)
    reader.log += again.records
    reader.subscription.settle(again)
    await wire.receive(reader, sent, within=40)
    complete(sent, reader.log)


async def test_a_reader_that_comes_later_is_there_when_it_is_declared(wire: Wire) -> None:
    channel = await wire.channel("first", kind=Kind.EVENT)
    publisher = wire.publisher()
    await wire.publish(messages(channel, "entity", range(3)), publisher)
    await wire.transport().declare([channel], {channel.name: [wire.name("first"), wire.name("second")]})
    sent = messages(channel, "entity", range(3, 6))
    await wire.publish(sent, publisher)
    for name in ("first", "second"):
        reader = await wire.member(name, channel)
        await wire.receive(reader, sent)
        assert missing(sent, reader.log) == []


async def test_a_queue_that_somebody_has_deleted(wire: Wire, link: Link) -> None:
    """Nothing is confirmed that a reader would not get; the reader makes its queue anew."""
    channel = await wire.channel("reader", "other", kind=Kind.EVENT)
    reader, publisher = await wire.member("reader", channel), wire.publisher()
    sent = message(channel, "entity", 1)
    await wire.publish([message(channel, "entity", 0)], publisher)
    lane = lane_of("entity", 12)
    url = (await look(link, channel.name)).readers[wire.name("reader")][lane]
    await link.ask("delete_queue", QueueUrl=url)
    assert list(await publisher.publish([sent])) == [Sent.UNKNOWN]
    assert list(await publisher.publish([sent])) == [Sent.UNKNOWN]

    async def through() -> None:
        with suppress(TransientError):
            await reader.subscription.take(1, 0.1)
        assert list(await publisher.publish([sent])) == [Sent.CONFIRMED]

    await eventually(through, within=60)
    await wire.receive(reader, [sent])
    assert missing([sent], reader.log) == []


async def test_another_number_of_lanes_is_refused(wire: Wire, server: ElasticMQ) -> None:
    channel = await wire.channel("reader")
    other = transport(f"{server.url}&lanes=5")
    with pytest.raises(BrokerRefuses, match=r"has 12 lanes in SQS .*, not 5: set lanes=12 in FTGO_BROKER_URL"):
        await other.declare([channel], {channel.name: [wire.name("reader")]})
    with pytest.raises(BrokerRefuses, match="12 lanes"):
        await other.subscription("reader", [channel]).open()


async def test_a_consumer_on_an_emulation_that_was_started_anew_makes_its_queues(tmp_path: Path) -> None:
    """Killed, the server has nothing left: that is told, and who reads and sends goes on."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    server = ElasticMQ(path / "elasticmq", free_port())
    await server.start()
    wire = Wire(Emulation(server))
    try:
        channel = await wire.channel("reader")
        reader, publisher = await wire.member("reader", channel), wire.publisher()
        await wire.publish(first := messages(channel, "entity", range(3)), publisher)
        await wire.receive(reader, first)
        server.kill()
        with pytest.raises(TransientError, match=r"SQS at .* is away"):
            await publisher.publish(first)

        async def told() -> None:
            with pytest.raises(TransientError, match=r"SQS at .* is away"):
                await reader.subscription.take(1, 1.0)

        await eventually(told, within=30)
        assert set((await reader.subscription.backlog()).values()) == {None}
        await server.start()
        sent = messages(channel, "entity", range(3, 6))

        async def confirmed() -> None:
            await reader.handle(wait=0.1)
            assert set(await publisher.publish(sent)) == {Sent.CONFIRMED}

        await eventually(confirmed, within=60)
        await wire.receive(reader, sent)
        assert missing(sent, reader.log) == []
    finally:
        await wire.close()
        server.stop()
        shutil.rmtree(path, ignore_errors=True)
