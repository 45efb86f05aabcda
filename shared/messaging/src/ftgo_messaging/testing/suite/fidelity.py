"""What is sent arrives as it was sent, or is refused; and it is counted while it waits."""

import random

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.demands import complete
from ftgo_messaging.testing.suite.judging import id_of, message, messages
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.transports.lanes import LANES, lane_of
from ftgo_messaging.transports.port import Sent

ODD = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "datacontenttype": "application/json",
    "unicode": "Žluťoučký kůň 🐎 \u202eright to left",
    "quotes": '"it\'s" \\ `back` %25 &amp; {x} [y] ;=,:',
    "breaks": "a\nb\r\nc\td",
    "blanks": "  in front and behind  ",
    "empty": "",
    "long": "8 kB " * 1638,
}


class Fidelity:
    async def test_refused(self, wire: Wire) -> None:
        """A channel that does not exist, and a message that is too large: refused. Those beside them arrive."""
        channel, missing_one = await wire.channel("reader"), Channel("suite.not.declared", Kind.EVENT)
        reader = await wire.member("reader", channel)
        good = [message(channel, f"entity-{n}", n) for n in range(4)]
        too_large = message(channel, "large", 1, body=b"x" * (wire.traits.max_bytes + 1))
        unroutable = message(missing_one, "nowhere", 1)
        outcomes = await wire.publisher().publish([good[0], unroutable, good[1], too_large, good[2]])
        assert list(outcomes) == [Sent.CONFIRMED, Sent.REFUSED, Sent.CONFIRMED, Sent.REFUSED, Sent.CONFIRMED]
        await wire.publish(good[3:])
        await wire.receive(reader, good)
        complete(good, reader.log)
        assert len(reader.log) == len(good)

    async def test_nobody_listens(self, wire: Wire) -> None:
        """An event that no consumer wants is no fault of the sender."""
        channel = await wire.channel(kind=Kind.EVENT)
        await wire.publish(messages(channel, "entity", range(5)))

    async def test_headers(self, wire: Wire) -> None:
        """Names, values, keys and bodies come as they were sent. Each has its own origin, of the lane of its key."""
        channel = await wire.channel("reader")
        reader = await wire.member("reader", channel)
        keys = ["plain", "ключ", "with blank : / \\ . * > # $", "k" * 200, *(f"k{n}" for n in range(8))]
        sent = [message(channel, key, n, body=bytes(range(256)), **ODD) for n, key in enumerate(keys)]
        sent.append(message(channel, "no body", 1, body=b""))
        await wire.publish(sent)
        await wire.receive(reader, sent)
        complete(sent, reader.log)
        for x in sent:
            found = next(r for r in reader.log if id_of(r) == x.id)
            headers = {name: (value or b"").decode() for name, value in found.headers}
            assert headers == dict(x.headers)
            assert (found.key, found.body or b"", found.defect) == (x.key.encode(), x.body, "")
            assert found.lane == f"{channel.name}/{lane_of(x.key, LANES)}"

    async def test_large_bodies(self, wire: Wire) -> None:
        """Up to the size that is promised."""
        channel = await wire.channel("reader")
        reader = await wire.member("reader", channel)
        size = min(wire.traits.max_bytes, 1_000_000) - 2000
        sent = [message(channel, "entity", n, body=random.Random(n).randbytes(size)) for n in range(4)]
        await wire.publish(sent)
        await wire.receive(reader, sent)
        complete(sent, reader.log)
        assert [r.body for r in reader.log] == [x.body for x in sent]

    async def test_backlog(self, wire: Wire) -> None:
        """How many wait, those in hand included, down to none."""
        channel = await wire.channel("reader")
        reader = await wire.member("reader", channel)
        sent = [message(channel, f"entity-{n}", n) for n in range(50)]
        await wire.publish(sent)

        async def waiting(expected: int) -> None:
            found = await reader.subscription.backlog()
            assert len(found) == LANES
            assert sum(count or 0 for count in found.values()) == expected

        await eventually(lambda: waiting(50), within=wire.patience)
        batch = await reader.taken(500, wire.patience)
        await waiting(50)
        reader.log += batch.records
        reader.subscription.settle(batch)
        await wire.receive(reader, sent)
        await eventually(lambda: waiting(0), within=wire.patience)
        complete(sent, reader.log)
