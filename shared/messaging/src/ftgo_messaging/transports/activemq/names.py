"""How channels, consumers and lanes are called at the broker, and how it knows which of them there are.

STOMP can neither make a queue nor ask for one, a topic without queues takes messages and drops them, and a queue that
never held a message is forgotten at the broker's restart (KahaDB writes down a queue with its first message). So:

* a channel has a queue of its own, ``ftgo.channel.CHANNEL``. It is only browsed, and holds a marker for the channel and
  one for each consumer, with the number of lanes. No marker of the channel: there is no such channel;
* each queue of a lane gets a marker as its first message, which its reader leaves out. All markers of a channel come in
  one transaction of the broker.
"""

import asyncio
from collections.abc import Collection
from urllib.parse import quote

from stompman import BeginFrame, CommitFrame, MessageFrame, SendFrame, SubscribeFrame, UnsubscribeFrame

from ftgo_messaging.transports.activemq.link import ANSWER_SECONDS, Link
from ftgo_messaging.transports.port import BrokerRefuses

MARKER = "ftgo-lanes"
_READER = "ftgo-reader"


def topic(channel: str, lane: int) -> str:
    return f"/topic/VirtualTopic.{quote(channel, safe='')}.{lane}"


def queue(consumer: str, channel: str, lane: int) -> str:
    """A dot in the consumer's name would hide it from the virtual topic, which looks for ``Consumer.*.``."""
    return (
        f"/queue/Consumer.{quote(consumer, safe='').replace('.', '%2E')}.VirtualTopic.{quote(channel, safe='')}.{lane}"
    )


async def markers(link: Link, channel: str) -> tuple[int, set[str]]:
    """The number of lanes, 0 when there is no such channel, and its consumers. Raises TransientError, BrokerRefuses."""
    found: list[MessageFrame] = []
    ended = asyncio.Event()

    async def note(frame: MessageFrame) -> None:
        if frame.headers.get("browser") == "end":
            ended.set()
        else:
            found.append(frame)

    name = f"b{next(link.numbers)}"
    before, link.on_message = link.on_message, note
    try:
        place = _registry(channel)
        await link.sure(link.ask(SubscribeFrame, {"id": name, "destination": place, "ack": "auto", "browser": "true"}))
        await _either(ended, link)
        await link.sure(link.ask(UnsubscribeFrame, {"id": name}))
    finally:
        link.on_message = before
    read = [(str(f.headers.get(MARKER, "")), str(f.headers.get(_READER, ""))) for f in found]
    lanes = next((int(number) for number, reader in read if number.isdecimal() and not reader), 0)
    return lanes, {reader for _, reader in read if reader}


async def declare(link: Link, channel: str, readers: Collection[str], lanes: int, *, make: bool = True) -> bool:
    """Make what is missing of the channel and of the queues of these consumers. Returns whether there was no such
    channel; without ``make`` that is refused. Raises TransientError and BrokerRefuses."""
    there, known = await markers(link, channel)
    if not there and not make:
        raise BrokerRefuses(f"ActiveMQ has no channel {channel}: declare it first, as `ftgo up` does.")
    _same(channel, there or lanes, lanes)
    missing = sorted(set(readers) - known)
    if there and not missing:
        return False
    # Before the channel's own marker: what is published as soon as that is seen finds all queues.
    sends: list[tuple[str, dict[str, str]]] = [
        (queue(reader, channel, lane), {}) for reader in missing for lane in range(lanes)
    ]
    sends += [(_registry(channel), {_READER: reader}) for reader in missing]
    sends += [] if there else [(_registry(channel), {})]
    transaction = f"t{next(link.numbers)}"
    link.write(BeginFrame(headers={"transaction": transaction}))
    for place, headers in sends:
        own = {"destination": place, "persistent": "true", "transaction": transaction, MARKER: str(lanes)}
        link.write(SendFrame(headers={**own, **headers}))  # type: ignore[typeddict-item]
    await link.sure(link.ask(CommitFrame, {"transaction": transaction}))
    # Somebody else may have declared it at the same time: the first marker counts.
    _same(channel, (await markers(link, channel))[0], lanes)
    return not there


def _same(channel: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise BrokerRefuses(
            f"The channel {channel} has {found} lanes at ActiveMQ, not {wanted}: set lanes={found} in FTGO_BROKER_URL; "
            "the number is fixed when a channel is made."
        )


def _registry(channel: str) -> str:
    return f"/queue/ftgo.channel.{quote(channel, safe='')}"


async def _either(event: asyncio.Event, link: Link) -> None:
    """Wait for the event, or for the loss of the connection, which the next receipt tells."""
    waiting = [asyncio.create_task(event.wait()), asyncio.create_task(link.lost.wait())]
    try:
        await asyncio.wait(waiting, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
