"""The queues of channels: which there are, and making them. None is ever changed or deleted."""

import asyncio
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from ftgo_messaging.transports.aws.client import Link
from ftgo_messaging.transports.aws.sqs.names import channel_queue, lane_queue, prefix_of, token
from ftgo_messaging.transports.port import BrokerRefuses

LOOK_SECONDS = 2.0
"""So long at most a publisher goes by what it has seen: then it looks again which readers a channel has."""
_ATTRIBUTES = {
    "FifoQueue": "true",
    "MaximumMessageSize": str(1_048_576),
    "MessageRetentionPeriod": str(14 * 24 * 3600),
}
"""The largest and the longest that SQS knows: without the size it may be 256 KiB."""
_AT_ONCE = 12
_CHANNEL = re.compile(r"(\d+)-lanes\.fifo")
_LANE = re.compile(r"(.+)--(\d+)\.fifo")


@dataclass(slots=True)
class Found:
    """What stands in SQS for a channel. ``lanes`` is 0 when it was never declared, ``readers`` maps each consumer's
    part of the names to the addresses of its queues by lane."""

    lanes: int = 0
    readers: dict[str, dict[int, str]] = field(default_factory=dict)


async def look(link: Link, channel: str) -> Found:
    """Raises TransientError and BrokerRefuses."""
    found, prefix = Found(), prefix_of(channel)
    more: dict[str, Any] = {}
    while True:
        answer = await link.ask("list_queues", QueueNamePrefix=prefix, MaxResults=1000, **more)
        for url in answer.get("QueueUrls", ()):
            rest = url.rpartition("/")[2].removeprefix(prefix)
            if itself := _CHANNEL.fullmatch(rest):
                found.lanes = int(itself[1])
            elif lane := _LANE.fullmatch(rest):
                found.readers.setdefault(lane[1], {})[int(lane[2])] = url
        if not answer.get("NextToken"):
            return found
        more = {"NextToken": answer["NextToken"]}


async def declare(link: Link, channel: str, consumers: Collection[str]) -> bool:
    """Make the queues of these consumers, and then the channel, whose readers are there from its first message on.
    Whether the channel was missing. Raises TransientError and BrokerRefuses.

    A reader that comes to a channel later is there for every publisher when this returns: so it waits as long as they
    go by what they have seen."""
    lanes = link.address.lanes
    found = await look(link, channel)
    if found.lanes not in {0, lanes}:
        raise BrokerRefuses(
            f"The channel {channel} has {found.lanes} lanes in SQS at {link.address}, not {lanes}: set "
            f"lanes={found.lanes} in FTGO_BROKER_URL. Another number would take keys to other lanes, out of order."
        )
    names = [
        lane_queue(channel, consumer, lane)
        for consumer in consumers
        for lane in range(lanes)
        if lane not in found.readers.get(token(consumer), {})
    ]
    await _make(link, names)
    if not found.lanes:
        await _make(link, [channel_queue(channel, lanes)])
    elif names:
        await asyncio.sleep(LOOK_SECONDS)
    return not found.lanes


async def queues_of(link: Link, channel: str, consumer: str) -> dict[int, str]:
    """The address of each lane's queue, declared before."""
    answers = {}
    known = (await look(link, channel)).readers.get(token(consumer), {})
    for lane in range(link.address.lanes):
        if lane in known:
            answers[lane] = known[lane]
        else:  # the list may be a second behind
            name = lane_queue(channel, consumer, lane)
            answers[lane] = (await link.ask("get_queue_url", QueueName=name))["QueueUrl"]
    return answers


async def _make(link: Link, names: Iterable[str]) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def make(name: str) -> None:
        async with at_once:
            await link.ask(
                "create_queue",
                QueueName=name,
                Attributes=_ATTRIBUTES,
            )

    await asyncio.gather(*(make(name) for name in names))
