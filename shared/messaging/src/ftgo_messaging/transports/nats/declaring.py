"""What stands in JetStream for a channel: a stream with a subject per lane, and a durable per consumer and lane.

Interest retention: a message goes when every durable that is declared for its lane has acknowledged it, at once when
there is none. A stream that is full refuses what is new; nothing that is kept is ever dropped. So whoever declares a
channel names all its readers, or what is sent before they come is for nobody; and the durables of a consumer that will
not come again have to be deleted (``nats consumer rm``), or what they wait for fills the stream.
"""

import asyncio
from collections.abc import Collection

from ftgo_messaging.transports.nats.connection import Address, Connection, Refused
from ftgo_messaging.transports.nats.wire import durable_of, stream_of, subject_of
from ftgo_messaging.transports.port import BrokerRefuses

ACK_SECONDS = 10
"""After that the server gives a record again. A member that has it drops it; so this is only for what went astray."""
_MOST_UNSETTLED = 2000
"""Of a lane: far more than a member has in hand."""
_NOT_FOUND = 10059
_OTHERWISE = 10148
_LANES = "ftgo-lanes"


async def declare_stream(link: Connection, channel: str, address: Address) -> bool:
    """Whether the stream was not there. Raises BrokerRefuses when one is that was made otherwise."""
    stream = stream_of(channel)
    try:
        await lanes_of_stream(link, channel, address)
    except _Missing:
        pass
    else:
        return False
    try:
        await link.api(
            f"STREAM.CREATE.{stream}",
            name=stream,
            subjects=_subjects(channel, address.lanes),
            retention="interest",
            discard="new",
            max_bytes=address.channel_bytes,
            storage="file",
            num_replicas=1,
            metadata={_LANES: str(address.lanes)},
        )
    except Refused as error:
        raise BrokerRefuses(
            f"NATS does not make the stream {stream} of {address.channel_bytes} bytes: {error}. Give it more room for "
            "JetStream, or the URL a smaller channel_mib."
        ) from None
    return True


class _Missing(BrokerRefuses):
    pass


async def lanes_of_stream(link: Connection, channel: str, address: Address) -> None:
    """Raises BrokerRefuses unless the channel's stream is there, as it would be made."""
    stream = stream_of(channel)
    try:
        found = (await link.api(f"STREAM.INFO.{stream}"))["config"]
    except Refused as error:
        if error.code != _NOT_FOUND:
            raise BrokerRefuses(f"NATS does not tell of the stream {stream}: {error}.") from None
        raise _Missing(f"There is no stream {stream} for the channel {channel}: declare it first.") from None
    lanes = found.get("metadata", {}).get(_LANES)
    if lanes is not None and lanes != str(address.lanes):
        raise BrokerRefuses(
            f"The stream {stream} was made with {lanes} lanes, not {address.lanes}: set lanes={lanes} in the broker's "
            "URL. Another number would take keys to other lanes, out of order."
        )
    made = (lanes, found["retention"], found["discard"], sorted(found["subjects"]))
    if made != (str(address.lanes), "interest", "new", sorted(_subjects(channel, address.lanes))):
        raise BrokerRefuses(
            f"A stream {stream} is there that was made by somebody else (retention {found['retention']}, discard "
            f"{found['discard']}, subjects {', '.join(found['subjects'])[:200]}): remove or rename it."
        )


async def declare_readers(link: Connection, channel: str, consumers: Collection[str], lanes: int) -> None:
    """The durables of these consumers; none is changed that is there."""
    await asyncio.gather(*(_durable(link, channel, consumer, i) for consumer in consumers for i in range(lanes)))


async def _durable(link: Connection, channel: str, consumer: str, lane: int) -> None:
    stream, name, subject = stream_of(channel), durable_of(consumer, lane), subject_of(channel, lane)
    config = {
        "name": name,
        "durable_name": name,
        "filter_subject": subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": ACK_SECONDS * 10**9,
        "max_ack_pending": _MOST_UNSETTLED,
        "max_deliver": -1,
    }
    try:
        await link.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", stream_name=stream, action="create", config=config)
    except Refused as error:
        cure = "remove it when nothing waits there" if error.code == _OTHERWISE else "see the server's log"
        raise BrokerRefuses(f"NATS does not make the durable {name} of the stream {stream}: {error}; {cure}.") from None


def _subjects(channel: str, lanes: int) -> list[str]:
    """Each by itself: a message to a lane that does not exist is refused, not stored for nobody."""
    return [subject_of(channel, lane) for lane in range(lanes)]
