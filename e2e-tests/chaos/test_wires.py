"""At each broker: what the library publishes is heard by the witness, in order and with CloudEvents' names, and so is
what intruders add; what a consumer has not read is counted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ftgo_contracts.channels import ALL_CHANNELS, READERS
from ftgo_local.brokers.kinds import absence
from ftgo_local.platform import Platform
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import Sent, Transport
from topology import TOPICS
from wires import CLASSES, Raw, Wire, wire_at
from wires.stomp import _escaped, _meant

COMMANDS = "kitchen.commands"


@pytest.fixture(params=list(CLASSES))
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Wire, Transport]]:
    if missing := await asyncio.to_thread(absence, request.param, tmp_path / "spare"):
        pytest.skip(str(missing))
    platform = Platform(tmp_path / "platform", broker=request.param)
    await platform.start_broker()
    transport = transport_at(platform.broker.url)
    try:
        await transport.declare(ALL_CHANNELS, READERS)
        yield wire_at(request.param, platform.broker.url), transport
    finally:
        await transport.close()
        platform.stop()


@pytest.mark.timeout(120)
async def test_the_witness_hears_all_and_the_intruders_are_heard(broker: tuple[Wire, Transport]) -> None:
    wire, transport = broker
    await wire.bind()
    messages = [_message(f"50 % für {n}: a\\b") for n in range(5)]
    publisher = transport.publisher("test")
    async with wire.listen(TOPICS, {}) as ear, wire.speak() as voice:
        assert set(await publisher.publish(messages)) == {Sent.CONFIRMED}
        heard: list[Raw] = []
        while len(heard) < len(messages):
            more = await ear.read(20)
            assert more, f"only {len(heard)} came"
            heard += more
        await voice.again(heard[1])
        await voice.again(heard[2], id="forged-id", forged="1")
        await voice.put(COMMANDS, "somebody", {"id": "poison-id", "type": "ftgo.nobody.Knows"}, b"{broken")
    await publisher.close()
    found = [raw async for raw in wire.everything(TOPICS)]
    assert {raw.topic for raw in found} == {COMMANDS}
    ours = [raw for raw in found if raw.key == "one"]
    assert [raw.headers["id"] for raw in ours] == [*(m.id for m in messages), messages[1].id, "forged-id"]
    assert [raw.place for raw in ours] == sorted(raw.place for raw in ours)
    assert len({raw.lane for raw in ours}) == 1
    assert [raw.headers["subject"] for raw in ours[:5]] == [m.headers["subject"] for m in messages]
    assert [raw.body for raw in ours[:5]] == [m.body for m in messages]
    assert {**ours[1].headers} == {**ours[5].headers}
    assert ours[6].headers["forged"] == "1"
    (poison,) = (raw for raw in found if raw.key == "somebody")
    assert (poison.headers["id"], poison.body) == ("poison-id", b"{broken")


@pytest.mark.timeout(120)
async def test_what_a_consumer_has_not_read_is_its_lag(broker: tuple[Wire, Transport]) -> None:
    wire, transport = broker
    channel = next(c for c in ALL_CHANNELS if c.name == COMMANDS)
    publisher, subscription = transport.publisher("test"), transport.subscription("kitchen", [channel])
    await subscription.open()
    if not transport.traits.assigns:
        await subscription.assign([f"{COMMANDS}/{lane}" for lane in range(transport.lanes)])
    assert set(await publisher.publish([_message("first")])) == {Sent.CONFIRMED}
    batch = None
    while batch is None:
        batch = await subscription.take(10, 1.0)
    subscription.settle(batch)
    await subscription.close()
    assert (await wire.lags()).get("kitchen") == 0
    assert set(await publisher.publish([_message(f"{n}") for n in range(3)])) == {Sent.CONFIRMED}
    await publisher.close()
    lags = await wire.lags()
    assert lags.pop("kitchen") == 3
    assert not any(lags.values())


def _message(subject: str) -> Message:
    name = new_id()
    headers = {"id": name, "source": "test", "type": "ftgo.test.Nothing", "subject": subject, "messagekind": "command"}
    return Message(name, COMMANDS, "one", headers, b'{"subject":"\x00"}')


@pytest.mark.parametrize("text", ["", "a:b", "a\\nb", "\\", "\\\\c", "a\nb\rc", "\\\\\\", "%41"])
def test_a_header_of_stomp_is_read_as_it_was_written(text: str) -> None:
    assert _meant(_escaped(text)) == text
