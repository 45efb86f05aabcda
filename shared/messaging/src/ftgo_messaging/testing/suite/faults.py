"""The death of the broker, too much at once, and being cut off."""

import asyncio
import random
import time
import tracemalloc
from collections import Counter

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.demands import complete, killed, needs, record
from ftgo_messaging.testing.suite.judging import disorder, message, messages, missing
from ftgo_messaging.testing.suite.member_process import growth, member_process, told
from ftgo_messaging.testing.suite.members import Wire


class Faults:
    away_seconds: float
    waiting: int
    most_growth: int

    async def test_back_pressure(self, wire: Wire) -> None:
        """However many wait, a slow handler's process does not grow with them."""
        channel = await wire.channel("reader")
        publisher = wire.publisher()
        body = b"x" * 1000
        for start in range(0, self.waiting, 1000):
            chunk = [message(channel, f"entity-{n % 97}", n, body=body) for n in range(start, start + 1000)]
            await wire.publish(chunk, publisher)
        if wire.subject.url is None:
            # What was freed before is used again, so the process need not grow: objects are counted here.
            tracemalloc.start()
            try:
                grown = await growth(
                    wire.transport(), wire.name("reader"), channel, 20, lambda: tracemalloc.get_traced_memory()[0]
                )
            finally:
                tracemalloc.stop()
        else:
            async with member_process(
                wire, "grow", consumer=wire.name("reader"), channel=channel.name, count=20
            ) as process:
                grown = await told(process, within=90)
        record(wire.subject, "growth_with_waiting", f"{grown / 1e6:.0f} MB with {self.waiting} of 1 kB")
        assert grown < self.most_growth

    async def test_killed_broker(self, wire: Wire) -> None:
        """What was confirmed is there when it comes again: 300 of 300."""
        needs(wire, "persistent")
        channel = await wire.channel("reader")
        sent = [x for i in range(30) for x in messages(channel, f"entity-{i}", range(10))]
        await wire.publish(sent, chunk=20)
        async with killed(wire.subject):
            pass
        reader = await wire.member("reader", channel)
        await wire.receive(reader, sent)
        record(wire.subject, "confirmed_after_kill", f"{300 - len(missing(sent, reader.log))} of 300")
        complete(sent, reader.log)

    async def test_broker_away(self, wire: Wire) -> None:
        """Whoever publishes or begins to read is told by a TransientError; a member that has a batch in hand settles it
        in vain, perhaps, and waits. Afterwards everything arrives, in order."""
        needs(wire, "persistent")
        channel = await wire.channel("reader")
        reader, publisher = await wire.member("reader", channel), wire.publisher()
        newcomer = wire.transport().subscription(wire.name("reader"), [channel])
        sent = messages(channel, "entity", range(30))
        await wire.publish(sent[:10], publisher)
        in_hand = await reader.taken(5, wire.patience)
        async with killed(wire.subject):
            until = time.monotonic() + self.away_seconds
            publishing = asyncio.create_task(publisher.publish(sent[10:]), name="publish")
            opening = asyncio.create_task(newcomer.open(), name="open")
            told, silent = await asyncio.wait({publishing, opening}, timeout=self.away_seconds + 1.5 * wire.patience)
            for task in silent:
                task.cancel()
            await asyncio.wait({publishing, opening})
            assert not silent, f"said nothing in time: {[task.get_name() for task in silent]}"
            assert [type(task.exception()) for task in told] == [TransientError, TransientError]
            reader.log += in_hand.records
            reader.subscription.settle(in_hand)
            while time.monotonic() < until:
                await reader.handle(wait=0.2)

        async def confirmed() -> None:
            try:
                await wire.publish(sent[10:], publisher)
            except TransientError as error:
                raise AssertionError("still away") from error

        await eventually(confirmed, within=2 * wire.patience)
        await wire.receive(reader, sent, within=2 * wire.patience + wire.traits.takeover_seconds)
        assert missing(sent, reader.log) == []
        assert disorder(reader.log) == 0

    async def test_cancelled(self, wire: Wire) -> None:
        """Whoever waits may be cut off at any moment: nothing is lost, nothing is left behind."""
        channel = await wire.channel("reader")
        reader, publisher = await wire.member("reader", channel), wire.publisher()
        chance = random.Random(3)
        sent = [x for n in range(40) for x in messages(channel, f"entity-{n % 4}", range(n * 5, n * 5 + 5))]
        await wire.publish([message(channel, "cut off", -1)], publisher)  # so that it is connected
        before = len(asyncio.all_tasks())
        for start in range(0, len(sent), 5):
            taking = asyncio.create_task(reader.handle(3, wait=0.1))
            cut = asyncio.create_task(publisher.publish([message(channel, "cut off", start)]))
            await asyncio.sleep(chance.random() * 0.01)
            cut.cancel()
            taking.cancel()
            await asyncio.gather(cut, taking, return_exceptions=True)
            await wire.publish(sent[start : start + 5], publisher)
        await wire.receive(reader, sent)
        complete(sent, [r for r in reader.log if r.key != b"cut off"])

        async def nothing_left() -> None:
            left = Counter(task.get_name() for task in asyncio.all_tasks())
            assert left.total() <= before + 3, left

        await eventually(nothing_left, within=wire.patience)
