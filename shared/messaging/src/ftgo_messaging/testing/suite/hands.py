"""What a member has in hand: settled, released, left behind."""

import asyncio
import time

from ftgo_messaging.testing.suite.demands import complete, needs_processes, record
from ftgo_messaging.testing.suite.judging import messages, missing
from ftgo_messaging.testing.suite.member_process import member_process, told
from ftgo_messaging.testing.suite.members import Wire


class Hands:
    handover_seconds: float

    async def test_release(self, wire: Wire) -> None:
        """What was released comes again before anything later of its lane, in smaller batches if these are wanted."""
        channel = await wire.channel("reader")
        reader = await wire.member("reader", channel)
        sent = messages(channel, "entity", range(40))
        await wire.publish(sent)
        first = await reader.taken(10, wire.patience)
        await reader.subscription.release(first)
        await wire.publish(more := messages(channel, "entity", range(40, 50)))
        again = await reader.taken(3, wire.patience)
        assert [r.origin for r in again.records] == [r.origin for r in first.records][: len(again.records)]
        assert len(again.records) <= 3
        await reader.subscription.release(again)
        await wire.receive(reader, [*sent, *more])
        complete([*sent, *more], reader.log)

    async def test_closed_without_settling(self, wire: Wire) -> None:
        """It comes again to another member, with the same origins; what was settled before does not."""
        channel = await wire.channel("reader")
        first = await wire.member("reader", channel)
        sent = messages(channel, "entity", range(20))
        await wire.publish(sent)
        settled = await first.taken(5, wire.patience)
        first.subscription.settle(settled)
        in_hand = await first.taken(5, wire.patience)
        await first.end()
        second = await wire.member("reader", channel)
        rest = sent[len(settled.records) :]
        await wire.receive(second, rest)
        complete(rest, second.log)
        assert not {r.origin for r in settled.records} & {r.origin for r in second.log}
        assert [r.origin for r in second.log[: len(in_hand.records)]] == [r.origin for r in in_hand.records]

    async def test_a_killed_member(self, wire: Wire) -> None:
        """What it had in hand comes to another one, as soon as is promised, with the same origins."""
        needs_processes(wire)
        channel = await wire.channel("reader")
        sent = messages(channel, "entity", range(20))
        await wire.publish(sent)
        async with member_process(wire, "hold", consumer=wire.name("reader"), channel=channel.name, count=5) as process:
            in_hand = await told(process)
            assert in_hand
            process.kill()
            await process.wait()
        killed = time.monotonic()
        other = await wire.member("reader", channel)
        while not other.log and time.monotonic() < killed + wire.traits.takeover_seconds + 20:
            await other.handle(wait=0.1)
        seconds = time.monotonic() - killed
        record(wire.subject, "takeover_seconds", round(seconds, 2))
        await wire.receive(other, sent)
        complete(sent, other.log)
        assert [r.origin for r in other.log[: len(in_hand)]] == in_hand
        assert seconds < wire.traits.takeover_seconds + 2.0

    async def test_clean_stop(self, wire: Wire) -> None:
        """The lanes of a member that stops are with the others within a second."""
        channel = await wire.channel("reader")
        members = await wire.members("reader", channel, 2)
        sent = [x for i in range(60) for x in messages(channel, f"entity-{i}", range(3))]
        await wire.publish(sent)
        await members[0].taken(5, wire.patience)
        started = time.monotonic()
        await members[0].end()
        if not wire.traits.assigns:
            await wire.divide(members[1:], [channel])
        while missing(sent, members[1].log) and time.monotonic() < started + wire.patience:
            await members[1].handle(wait=0.05)
        seconds = time.monotonic() - started
        record(wire.subject, "handover_seconds", round(seconds, 2))
        assert missing(sent, members[1].log) == []
        assert seconds < self.handover_seconds

    async def test_long_work(self, wire: Wire) -> None:
        """A batch whose time is extended is given to nobody else, and not again."""
        channel = await wire.channel("reader")
        reader = await wire.member("reader", channel)
        sent = messages(channel, "entity", range(10))
        await wire.publish(sent)
        batch = await reader.taken(500, wire.patience)
        until = time.monotonic() + min(wire.traits.takeover_seconds + 1, 12)
        while time.monotonic() < until:
            await reader.subscription.extend(batch)
            await asyncio.sleep(0.3)
        reader.log += batch.records
        reader.subscription.settle(batch)
        await wire.receive(reader, sent)
        complete(sent, reader.log)
