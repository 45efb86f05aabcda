"""A channel without anybody to read it."""

import pytest

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.testing.suite.judging import message
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.transports.port import BrokerRefuses, Sent


class Readers:
    async def test_nobody_reads(self, wire: Wire) -> None:
        """Commands and replies are for somebody: such a channel is not made, nor those beside it."""
        for kind in (Kind.COMMAND, Kind.REPLY):
            alone, beside = (Channel(f"suite.{new_id()}", each, key=str) for each in (kind, Kind.EVENT))
            with pytest.raises(BrokerRefuses, match=rf"Nobody reads {alone.name} .*Name the consumers"):
                await wire.transport().declare([beside, alone], {})
            outcomes = await wire.publisher().publish([message(alone, "key", 1), message(beside, "key", 1)])
            assert set(outcomes) == {Sent.REFUSED}
