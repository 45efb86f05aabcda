"""One lane that a member reads: a queue with one message group, of which SQS gives nothing while some is in hand.

So a lane has up to ten messages in hand, those that the queue gave at once; they are deleted when they are settled, and
only then come the next. Whoever holds them holds the lane, until the time of ``visibility`` is over."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ftgo_messaging.messages.message import size_of_headers
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.aws.client import Link
from ftgo_messaging.transports.cloudevents import from_envelope
from ftgo_messaging.transports.port import BrokerRefuses, Record

_MOST = 10
_LARGE_BYTES = 100_000
_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Held:
    record: Record
    size: int
    handle: str


@dataclass(slots=True, eq=False)
class Lane:
    """``held`` waits to be taken, ``out`` is taken, ``settled`` is to be deleted. ``until``: so long SQS gives them to
    nobody else, by this machine's clock."""

    link: Link
    channel: str
    number: int
    url: str
    room: Callable[[], bool]
    """Whether there is room for more in memory."""
    held: deque[Held] = field(default_factory=deque)
    out: list[Held] = field(default_factory=list)
    settled: list[Held] = field(default_factory=list)
    until: float = 0.0
    most: int = _MOST
    task: asyncio.Task[None] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ending: bool = False

    @property
    def name(self) -> str:
        return f"{self.channel}/{self.number}"

    @property
    def size(self) -> int:
        return sum(each.size for each in self.held)

    async def run(self, news: asyncio.Event) -> None:
        """Receive when nothing is in hand, delete what is settled. Ends when it is told to, or with an error."""
        while not self.ending or self.settled:
            if self.settled:
                await self._delete()
            elif not self.held and not self.out and self.room():
                if await self._receive():
                    news.set()
            else:
                self.wake.clear()
                await self.wake.wait()

    def drop_what_is_late(self) -> None:
        """What SQS gives to others now, or again to us: it is not to be taken."""
        if self.held and asyncio.get_running_loop().time() > self.until:
            self.held.clear()
            self.wake.set()

    async def extend(self) -> None:
        """Raises TransientError and BrokerRefuses."""
        at = asyncio.get_running_loop().time()
        if in_hand := [*self.out, *self.held]:
            await self._change(in_hand, self.link.address.visibility)
            self.until = at + self.link.address.visibility

    async def end(self) -> None:
        """Give up what is in hand: whoever reads next gets it at once. Never raises. A question that waits is not cut
        off, for SQS might answer it to nobody."""
        self.ending = True
        self.wake.set()
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=self.link.address.wait + _END_SECONDS)
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        with suppress(TransientError, BrokerRefuses):
            if self.settled:
                await self._delete()
            in_hand = [*self.out, *self.held]
            if in_hand and asyncio.get_running_loop().time() < self.until:
                await self._change(in_hand, 0)
        self.held.clear()
        self.out.clear()

    async def waiting(self) -> int | None:
        """How many are in the queue, those in hand included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        try:
            answer = await self.link.ask("get_queue_attributes", QueueUrl=self.url, AttributeNames=names)
        except (TransientError, BrokerRefuses):
            return None
        return sum(int(answer.get("Attributes", {}).get(name, 0)) for name in names)

    async def _receive(self) -> bool:
        address, at = self.link.address, asyncio.get_running_loop().time()
        answer = await self.link.ask(
            "receive_message",
            address.wait,
            QueueUrl=self.url,
            MaxNumberOfMessages=self.most,
            WaitTimeSeconds=address.wait,
            VisibilityTimeout=address.visibility,
        )
        found = [self._held(message) for message in answer.get("Messages") or ()]
        if found:
            # Counted from before the answer; long enough for the way to the handler and back.
            self.until = at + address.visibility - min(1.0, address.visibility / 10)
            self.most = 1 if max(each.size for each in found) > _LARGE_BYTES else _MOST
        self.held.extend(found)
        return bool(found)

    def _held(self, message: dict[str, Any]) -> Held:
        key, headers, body, defect = from_envelope(message.get("Body", "").encode())
        record = Record(self.channel, key, headers, body, f"{self.name}@{message['MessageId']}", defect)
        return Held(record, len(body or b"") + size_of_headers(headers), message["ReceiptHandle"])

    async def _delete(self) -> None:
        """What SQS says to each is of no use: one whose time was over comes again, and is known by its id."""
        deleted = self.settled[:_MOST]
        await self._batch("delete_message_batch", deleted, {})
        self.settled = self.settled[len(deleted) :]

    async def _change(self, held: Sequence[Held], seconds: int) -> None:
        await self._batch("change_message_visibility_batch", held, {"VisibilityTimeout": seconds})

    async def _batch(self, operation: str, held: Sequence[Held], more: dict[str, object]) -> None:
        entries = [{"Id": str(i), "ReceiptHandle": each.handle, **more} for i, each in enumerate(held)]
        await self.link.ask(operation, QueueUrl=self.url, Entries=entries)
