"""Point to point, publish and subscribe, subscribers that are away."""

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.testing.suite.demands import complete, needs, record
from ftgo_messaging.testing.suite.judging import messages, missing
from ftgo_messaging.testing.suite.members import Wire


class KindsOfChannel:
    async def test_competing_members(self, wire: Wire) -> None:
        """Point to point: each message goes to one of the members, and each member has some."""
        channel = await wire.channel("workers")
        members = await wire.members("workers", channel, 3)
        for member in members:
            member.log = []
        sent = [x for i in range(60) for x in messages(channel, f"entity-{i}", range(5))]
        await wire.publish(sent)
        await wire.receive(members, sent)
        complete(sent, [r for member in members for r in member.log])
        shares = [len(member.log) for member in members]
        record(wire.subject, "competing", shares)
        assert min(shares) > 0, shares

    async def test_publish_subscribe(self, wire: Wire) -> None:
        """Each consumer gets every message."""
        channel = await wire.channel("billing", "statistics", kind=Kind.EVENT)
        billing, statistics = await wire.member("billing", channel), await wire.member("statistics", channel)
        sent = [x for i in range(20) for x in messages(channel, f"entity-{i}", range(5))]
        await wire.publish(sent)
        for member in (billing, statistics):
            await wire.receive(member, sent)
            complete(sent, member.log)

    async def test_durable_subscriber(self, wire: Wire) -> None:
        """One that was away gets what was published meanwhile, and one that never was there what came since it was
        declared."""
        needs(wire, "durable")
        channel = await wire.channel("billing", "statistics", kind=Kind.EVENT)
        sent = messages(channel, "entity", range(30))
        billing = await wire.member("billing", channel)
        await wire.publish(sent[:10])
        await wire.receive(billing, sent[:10])
        await billing.end()
        await wire.publish(sent[10:])
        back, late = await wire.member("billing", channel), await wire.member("statistics", channel)
        await wire.receive(back, sent[10:])
        complete(sent[10:], back.log)
        assert missing(sent[:10], back.log) == [f"entity:{n}" for n in range(10)], "settled, and given again"
        await wire.receive(late, sent)
        complete(sent, late.log)

    async def test_replay(self, wire: Wire) -> None:
        """A consumer that nobody knew gets what was there before it."""
        needs(wire, "replays")
        channel = await wire.channel("known", kind=Kind.EVENT)
        sent = messages(channel, "entity", range(20))
        await wire.publish(sent)
        late = await wire.member("unknown", channel)
        await wire.receive(late, sent)
        complete(sent, late.log)

    async def test_several_channels(self, wire: Wire) -> None:
        """A consumer reads several; a channel with the same key beside them is none of its."""
        channels = [await wire.channel("reader"), await wire.channel("reader")]
        other = await wire.channel("another")
        reader = await wire.member("reader", *channels)
        sent = [x for channel in channels for x in messages(channel, channel.name, range(20), key="the same")]
        await wire.publish([*sent, *messages(other, "other", range(5), key="the same")])
        await wire.receive(reader, sent)
        complete(sent, reader.log)
        assert {r.channel for r in reader.log} == {channel.name for channel in channels}

    async def test_declared_twice(self, wire: Wire) -> None:
        """What is there is not made again, and loses nothing."""
        channel, transport = Channel(f"{(await wire.channel(kind=Kind.EVENT)).name}.new", Kind.EVENT), wire.transport()
        assert list(await transport.declare([channel], {channel.name: [wire.name("reader")]})) == [channel.name]
        sent = messages(channel, "entity", range(5))
        await wire.publish(sent)
        assert list(await wire.transport().declare([channel], {channel.name: [wire.name("reader")]})) == []
        reader = await wire.member("reader", channel)
        await wire.receive(reader, sent)
        complete(sent, reader.log)
