"""Order per key, whatever members come and go; and the control without a key."""

import asyncio
import itertools
import random

from ftgo_messaging.messages.message import Message
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.demands import needs, record
from ftgo_messaging.testing.suite.judging import disorder, message, missing
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.transports.port import Record


class Order:
    per_entity: int

    async def test_order_per_key(self, wire: Wire) -> None:
        """Whatever members come, go with a batch in hand, are paused, and release what they have."""
        needs(wire, "ordered")
        sent, log = await self.churn(wire, keyed=True)
        record(wire.subject, "order_of_members", {"violations": disorder(log), "messages": len(sent)})
        assert missing(sent, log) == []
        assert disorder(log) == 0

    async def test_control_without_a_key(self, wire: Wire) -> None:
        """The same with a new key for each message must show disorder, or the test before this one shows nothing."""
        sent, log = await self.churn(wire, keyed=False)
        assert missing(sent, log) == []
        found = disorder(log)
        record(wire.subject, "order_of_members_without_a_key", {"violations": found, "messages": len(sent)})
        assert found > 0

    async def churn(self, wire: Wire, *, keyed: bool) -> tuple[list[Message], list[Record]]:
        chance = random.Random(7)
        channel = await wire.channel("workers")
        entities = [f"entity-{i}" for i in range(40)]
        sent = [
            message(channel, entity if keyed else f"{entity}-{chance.random()}", n, entity=entity)
            for n in range(self.per_entity)
            for entity in entities
        ]
        members = await wire.members("workers", channel, 2)
        tasks = [asyncio.create_task(member.work(chance, 0.2)) for member in members]

        async def publish() -> None:
            publisher = wire.publisher()
            for start in range(0, len(sent), 60):
                await wire.publish(sent[start : start + 60], publisher)
                await asyncio.sleep(0.02)

        publishing = asyncio.create_task(publish())
        for step in itertools.count():
            if step % 2 == 0 and step >= 6 and publishing.done():
                break
            await asyncio.sleep(0.2)
            if step % 2 == 0:
                members.append(await wire.joins(members, "workers", channel))
                tasks.append(asyncio.create_task(members[-1].work(chance, 0.2)))
            else:
                members[0].paused = True
                await asyncio.sleep(0.1)
                await members.pop(0).end(in_hand=True)
            await wire.divide(members, [channel])
        await publishing
        log = members[0].log

        async def everything() -> None:
            assert missing(sent, log) == []

        # A second for each thousand: what waits is more, the more was sent, and looking takes longer, too.
        within, every = 2 * wire.patience + len(sent) / 1000, max(0.02, len(sent) / 100_000)
        await eventually(everything, within=within, every=every)
        for member in members:
            await member.end()
        await asyncio.gather(*tasks)
        return sent, log
