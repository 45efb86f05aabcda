"""Who reads a channel has to be known when it is declared: brokers keep a message for those alone whom they know."""

from collections.abc import Collection, Mapping, Sequence

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.transports.port import BrokerRefuses

_WANTED = frozenset({Kind.COMMAND, Kind.REPLY})


def check_readers(channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> None:
    """Each adapter's ``declare`` begins with it. Raises BrokerRefuses for a channel of commands or replies without a
    consumer: what is sent there is meant for somebody, and would be confirmed, and be gone. An event may be for nobody.
    """
    if nobodys := [channel for channel in channels if channel.kind in _WANTED and not readers.get(channel.name)]:
        names = ", ".join(f"{channel.name} ({channel.kind.lower()}s)" for channel in nobodys)
        raise BrokerRefuses(
            f"Nobody reads {names}: what is sent there would be lost. Name the consumers when the channels are "
            "declared (in `readers`), also those that come later."
        )
