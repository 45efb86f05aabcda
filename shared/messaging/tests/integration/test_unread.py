"""What each broker says of lanes that are not read to their end, on real servers."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ftgo_local.brokers.activemq import ActiveMQ
from ftgo_local.brokers.nats import Nats
from ftgo_local.brokers.valkey import Valkey
from ftgo_local.kafka import Kafka
from ftgo_local.ports import free_port
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.lanes import LANES, lane_of
from ftgo_messaging.transports.port import Batch, Sent, Subscription, Transport

SERVERS: dict[str, Any] = {"nats": Nats, "valkey": Valkey, "activemq": ActiveMQ}


@pytest.fixture(scope="module", params=["memory", "kafka", *SERVERS])
async def url(request: pytest.FixtureRequest, kafka: Kafka) -> AsyncIterator[str]:
    if request.param == "memory":
        yield f"memory://{new_id()}"
    elif request.param == "kafka":
        yield f"kafka://{kafka.bootstrap}"
    else:
        folder = Path(tempfile.mkdtemp(prefix="ftgo-move-"))
        server = SERVERS[request.param](folder / "data", free_port())
        if hasattr(server, "prepare"):
            await server.prepare()
        await server.start()
        yield server.url
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def transport(url: str) -> Transport:
    return transport_at(url)


@pytest.fixture
async def channel(transport: Transport) -> Channel:
    channel = Channel(f"test.{new_id()}", Kind.EVENT)
    await transport.declare([channel], {channel.name: ["one", "two"]})

    async def told() -> None:
        try:
            await transport.unread({channel.name: ["one", "two"]})
        except TransientError as error:  # a Kafka that has never had a group takes a moment
            raise AssertionError from error

    await eventually(told, within=30)
    return channel


async def publish(transport: Transport, channel: Channel, *keys: str) -> None:
    publisher = transport.publisher("test")
    sent = [Message(new_id(), channel.name, key, {"id": new_id(), "type": "T"}, b"{}") for key in keys]
    assert set(await publisher.publish(sent)) == {Sent.CONFIRMED}
    await publisher.close()


async def member(transport: Transport, channel: Channel, consumer: str) -> Subscription:
    subscription = transport.subscription(consumer, [channel])
    await subscription.open()
    await subscription.assign([f"{channel.name}/{lane}" for lane in range(transport.lanes)])
    return subscription


async def take(subscription: Subscription, count: int) -> list[Batch]:
    """Batches that hold so many records together. All but the last one are settled."""
    found: list[Batch] = []

    async def taken() -> None:
        if sum(len(batch.records) for batch in found) < count:
            batch = await subscription.take(500, 1.0)
            if batch is not None:
                if found:
                    subscription.settle(found[-1])
                found.append(batch)
        assert sum(len(batch.records) for batch in found) == count

    await eventually(taken, within=30)
    return found


async def unread(transport: Transport, channel: Channel, *readers: str) -> dict[int, int | None]:
    """Of the lanes of which it is not 0."""
    found = await transport.unread({channel.name: readers})
    assert found.keys() == {f"{channel.name}/{lane}" for lane in range(transport.lanes)}
    return {int(lane.rpartition("/")[2]): count for lane, count in found.items() if count != 0}


async def test_what_somebody_has_in_hand_is_unread_until_it_is_settled(transport: Transport, channel: Channel) -> None:
    assert await unread(transport, channel, "one", "two") == {}
    await publish(transport, channel, "key")
    lane = lane_of("key", LANES)
    assert await unread(transport, channel, "one", "two") == {lane: 2}
    assert await unread(transport, channel) == {}
    one = await member(transport, channel, "one")
    [batch] = await take(one, 1)
    assert await unread(transport, channel, "one") == {lane: 1}
    assert await unread(transport, channel, "one", "two") == {lane: 2}
    one.settle(batch)

    async def settled() -> None:
        assert await unread(transport, channel, "one") == {}

    await eventually(settled, within=20)
    assert await unread(transport, channel, "one", "two") == {lane: 1}
    await one.close()
    assert await unread(transport, channel, "one") == {}
    # And again, behind what was settled.
    await publish(transport, channel, "key")
    assert await unread(transport, channel, "one") == {lane: 1}


async def test_what_was_given_up_without_an_answer_is_unread(transport: Transport, channel: Channel) -> None:
    await publish(transport, channel, "key")
    one = await member(transport, channel, "one")
    await take(one, 1)
    await one.close()
    assert await unread(transport, channel, "one") == {lane_of("key", LANES): 1}


async def test_lanes_are_read_to_their_end_each_for_itself(transport: Transport, channel: Channel) -> None:
    keys = [f"key-{n}" for n in range(200)]
    lanes = {lane_of(key, LANES) for key in keys}
    assert len(lanes) == LANES
    await publish(transport, channel, *keys)
    assert (await unread(transport, channel, "one")).keys() == lanes
    one = await member(transport, channel, "one")
    batches = await take(one, 200)
    in_hand = {int(record.lane.rpartition("/")[2]) for record in batches[-1].records}

    async def known() -> None:
        assert (await unread(transport, channel, "one")).keys() == in_hand

    await eventually(known, within=20)
    one.settle(batches[-1])

    async def all_read() -> None:
        assert await unread(transport, channel, "one") == {}

    await eventually(all_read, within=20)
    await one.close()


async def test_of_what_is_not_there_nothing_is_unread(transport: Transport, channel: Channel) -> None:
    nowhere = Channel(f"nowhere.{new_id()}", Kind.EVENT)
    assert await unread(transport, nowhere, "one") == {}


@pytest.mark.parametrize(
    "away", ["kafka://127.0.0.1:1", "nats://127.0.0.1:1", "valkey://127.0.0.1:1", "stomp://127.0.0.1:1"]
)
async def test_nobody_knows_while_the_broker_is_away(away: str) -> None:
    with pytest.raises(TransientError):
        await transport_at(away).unread({"any": ["one"]})
