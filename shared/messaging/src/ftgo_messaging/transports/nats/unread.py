"""How much the durables of some consumers have to deliver, or to hear acknowledged."""

import asyncio
from collections.abc import Collection, Mapping

from ftgo_messaging.transports.lanes import names_of
from ftgo_messaging.transports.nats.connection import Connection, Refused
from ftgo_messaging.transports.nats.wire import durable_of, stream_of
from ftgo_messaging.transports.port import BrokerRefuses

_NO_STREAM = 10059
_NO_DURABLE = 10014


async def unread(link: Connection, readers: Mapping[str, Collection[str]], lanes: int) -> dict[str, int | None]:
    """For each lane of these channels. What is not declared keeps nothing for its consumer."""
    places = [
        (c, lane, consumer) for c, consumers in readers.items() for lane in range(lanes) for consumer in consumers
    ]
    counts = await asyncio.gather(*(_of(link, *place) for place in places))
    found: dict[str, int | None] = dict.fromkeys(names_of(readers, lanes), 0)
    for (channel, lane, _), count in zip(places, counts, strict=True):
        name = f"{channel}/{lane}"
        found[name] = (found[name] or 0) + count
    return found


async def _of(link: Connection, channel: str, lane: int, consumer: str) -> int:
    name = f"{stream_of(channel)}.{durable_of(consumer, lane)}"
    try:
        info = await link.api(f"CONSUMER.INFO.{name}")
    except Refused as error:
        if error.code in {_NO_STREAM, _NO_DURABLE}:
            return 0
        raise BrokerRefuses(f"NATS does not tell of the durable {name}: {error}.") from None
    return int(info["num_pending"]) + int(info["num_ack_pending"])
