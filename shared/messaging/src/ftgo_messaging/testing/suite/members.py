"""What the conformance suite works with: channels, senders and members on one broker."""

import asyncio
import importlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.suite.judging import missing
from ftgo_messaging.transports.lanes import LANES, names_of
from ftgo_messaging.transports.port import Batch, Publisher, Record, Sent, Traits, Transport

Action = Callable[[], Awaitable[None]]


class Subject(Protocol):
    """A broker under test. A channel has LANES lanes on it."""

    traits: Traits
    url: str | None
    """Where another process reaches it; None: not at all."""
    kill: Action | None
    """End the server as ``kill -9`` does. None: there is no server that the test may end."""
    stop: Action | None
    start: Action | None
    """The same server again, with its data; returns when it can be reached."""

    def transport(self) -> Transport:
        """A new client each time."""
        ...


class Server(Protocol):
    """As the classes of ``ftgo_local`` are."""

    @property
    def url(self) -> str: ...
    async def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class OnServer:
    """A subject that is a server of the test's own, which has been started."""

    def __init__(self, server: Server, transport: Callable[[str], Transport]) -> None:
        self._server = server
        self._transport = transport
        self.traits = transport(server.url).traits
        self.url: str | None = server.url
        self.start: Action | None = server.start

    def transport(self) -> Transport:
        return self._transport(self._server.url)

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.stop)


class Member:
    """One member of a consumer. What it handles it writes into ``log``, which several members may share."""

    def __init__(self, transport: Transport, consumer: str, channels: Sequence[Channel], log: list[Record]) -> None:
        self.transport = transport
        self.subscription = transport.subscription(consumer, channels)
        self.log = log
        self.lanes: set[str] = set()
        self.between = asyncio.Lock()
        """Held while a batch is out."""
        self.paused = self.ended = False

    async def assign(self, lanes: Collection[str]) -> None:
        self.lanes = set(lanes)
        if not self.transport.traits.assigns:
            await self.subscription.assign(sorted(lanes))

    async def take(self, most: int = 500, wait: float = 0.5) -> Batch | None:
        """As the runner does it: while the broker is away, ask again after a pause."""
        try:
            return await self.subscription.take(most, wait)
        except TransientError:
            await asyncio.sleep(0.1)
            return None

    async def taken(self, most: int = 500, within: float = 30) -> Batch:
        """A batch, of however few records. Raises AssertionError when none comes."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if batch := await self.take(most, 0.5):
                return batch
        raise AssertionError(f"nothing came within {within:.0f} s")

    async def handle(self, most: int = 500, wait: float = 0.5) -> bool:
        """Take a batch, and settle it. Whether there was one."""
        batch = await self.take(most, wait)
        if batch is not None:
            self.log += batch.records
            self.subscription.settle(batch)
        return batch is not None

    async def work(self, chance: random.Random, releases: float = 0.0) -> None:
        """Until it has ended: handle batches of any size, and release some of them at first."""
        while not self.ended:
            async with self.between:
                batch = None if self.paused or self.ended else await self.take(chance.choice([1, 7, 500]), 0.05)
                if batch is not None and chance.random() < releases:
                    await self.subscription.release(batch)
                elif batch is not None:
                    await asyncio.sleep(0)
                    self.log += batch.records
                    self.subscription.settle(batch)
            await asyncio.sleep(0.01 if self.paused else 0)

    async def end(self, *, in_hand: bool = False) -> None:
        """Close, perhaps with a batch that is not settled."""
        async with self.between:
            if in_hand and not self.ended:
                await self.take(5, 0.2)
            self.ended = True
            await self.subscription.close()


class Wire:
    """What one test has on the broker. Everything is closed at its end. ``patience``: seconds until what has not come
    is lost."""

    def __init__(self, subject: Subject, patience: float = 30.0) -> None:
        self.patience = patience
        self._suffix = new_id()[-12:]
        self.subject = subject
        self.traits = subject.traits
        self._transports: list[Transport] = []
        self._publishers: list[Publisher] = []
        self._members: list[Member] = []

    def name(self, consumer: str) -> str:
        """Of a consumer, for this test alone: a broker remembers those of other tests."""
        return f"{consumer}-{self._suffix}"

    def transport(self) -> Transport:
        self._transports.append(self.subject.transport())
        return self._transports[-1]

    async def channel(self, *readers: str, kind: Kind = Kind.COMMAND) -> Channel:
        """A new one, declared for these consumers."""
        channel = Channel(f"suite.{new_id()}", kind, key=str)
        await self.transport().declare([channel], {channel.name: [self.name(x) for x in readers]})
        return channel

    def publisher(self) -> Publisher:
        self._publishers.append(self.transport().publisher("suite"))
        return self._publishers[-1]

    async def publish(self, sent: Sequence[Message], publisher: Publisher | None = None, chunk: int = 500) -> None:
        """Raises AssertionError unless all are confirmed."""
        publisher = publisher or self.publisher()
        for start in range(0, len(sent), chunk):
            outcomes = await publisher.publish(sent[start : start + chunk])
            if set(outcomes) != {Sent.CONFIRMED} or len(outcomes) != len(sent[start : start + chunk]):
                raise AssertionError(f"not confirmed: {Counter(outcomes)}")

    async def members(self, consumer: str, channels: Channel | Sequence[Channel], count: int = 1) -> list[Member]:
        """Members that have divided the lanes among them, with one log."""
        channels = [channels] if isinstance(channels, Channel) else channels
        log: list[Record] = []
        found = [Member(self.transport(), self.name(consumer), channels, log) for _ in range(count)]
        self._members += found
        for member in found:
            await member.subscription.open()
        await self.divide(found, channels)
        return found

    async def member(self, consumer: str, *channels: Channel) -> Member:
        return (await self.members(consumer, channels))[0]

    async def joins(self, others: Sequence[Member], consumer: str, channel: Channel) -> Member:
        """One more member, with the log of the others. The lanes are not divided anew yet."""
        member = Member(self.transport(), self.name(consumer), [channel], others[0].log)
        self._members.append(member)
        await member.subscription.open()
        return member

    async def divide(self, members: Sequence[Member], channels: Sequence[Channel]) -> None:
        """Each lane to one of the members; where the broker does that, wait until it has."""
        lanes = lanes_of(channels)
        if self.traits.assigns:

            async def divided() -> None:
                found = [lane for member in members for lane in await member.subscription.backlog()]
                if sorted(found) != sorted(lanes):
                    raise AssertionError(f"not divided yet: {found}")

            await eventually(divided, within=60)
            return
        wanted = [set(lanes[i :: len(members)]) for i in range(len(members))]
        for step in range(2):  # given up by one before another reads it
            for member, lot in zip(members, wanted, strict=True):
                async with member.between:
                    await member.assign(lot if step else lot & member.lanes)

    async def receive(self, members: Member | Sequence[Member], sent: Sequence[Message], within: float = 0) -> None:
        """Let the members handle until all this has come, or no more comes in time; and then for a moment more."""
        members = [members] if isinstance(members, Member) else members
        deadline = time.monotonic() + (within or self.patience)

        async def handle(member: Member) -> None:
            while missing(sent, (r for x in members for r in x.log)) and time.monotonic() < deadline:
                await member.handle(wait=0.1)
            for _ in range(20):
                if not await member.handle(wait=0.2):
                    break

        await asyncio.gather(*(handle(member) for member in members))

    async def close(self) -> None:
        for member in self._members:
            await member.end()
        for publisher in self._publishers:
            await publisher.close()
        for transport in self._transports:
            await transport.close()


def lanes_of(channels: Sequence[Channel]) -> list[str]:
    return names_of((channel.name for channel in channels), LANES)


def package_of(transport: Transport) -> str:
    """The package with a function ``transport`` that makes another one of it from a URL: for other processes."""
    package = type(transport).__module__
    while not hasattr(importlib.import_module(package), "transport"):
        package = package.rpartition(".")[0]
    return package
