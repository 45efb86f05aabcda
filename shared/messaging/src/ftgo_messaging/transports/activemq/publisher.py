"""Publishes with a receipt for each message, many under way."""

import asyncio
from collections.abc import Collection, Sequence

import structlog

from ftgo_messaging.messages.message import Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.activemq.link import ANSWER_SECONDS, Address, Link
from ftgo_messaging.transports.activemq.names import markers
from ftgo_messaging.transports.activemq.wire import frame_of
from ftgo_messaging.transports.port import Sent

log = structlog.get_logger("ftgo.activemq")


class ActiveMqPublisher:
    """One connection, made again when it was lost.

    Not in transactions of the broker, though one write to the disk for many messages would be faster: what is committed
    in them stays in its memory too (6.3.1), and when that is full it lets all senders wait, until somebody reads."""

    def __init__(self, address: Address, max_bytes: int) -> None:
        self._address = address
        self._max_bytes = max_bytes
        self._link: Link | None = None
        self._lanes: dict[str, int] = {}
        self._connecting = asyncio.Lock()
        self._asking = asyncio.Lock()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        sent = [Sent.UNKNOWN] * len(messages)
        start = 0
        try:
            while start < len(messages):
                start = await self._publish(messages, start, sent)
        except TransientError:
            if start == 0:
                raise
        except asyncio.CancelledError:
            if self._link is not None:
                self._link.abort("cancelled")
            raise
        if Sent.UNKNOWN in sent:
            log.warning("publish.unknown", unknown=sent.count(Sent.UNKNOWN), of=len(messages))
            if set(sent) == {Sent.UNKNOWN}:
                raise TransientError(f"ActiveMQ is away: {self._link.why if self._link else 'closed'}")
        return sent

    async def _publish(self, messages: Sequence[Message], start: int, sent: list[Sent]) -> int:
        """From there on. Returns where to go on, behind a message for which the broker has closed the connection."""
        link = await self._connected()
        link.said = ""
        answers: dict[int, asyncio.Future[Sent]] = {}
        for i in range(start, len(messages)):
            lanes = await self._lanes_of(link, messages[i].channel)
            frame, why = frame_of(messages[i], lanes, self._max_bytes) if lanes else (b"", "there is no such channel")
            if why:
                sent[i] = Sent.REFUSED
                log.warning("publish.refused", channel=messages[i].channel, id=messages[i].id, why=why)
                continue
            receipt, answers[i] = link.receipt()
            link.write(b"SEND\nreceipt:%s\n%s" % (receipt.encode(), frame))
            await link.drained()
        await _wait(link, answers.values())
        for i, answer in answers.items():
            sent[i] = answer.result()
            if sent[i] is Sent.UNKNOWN and link.said:
                # It takes one after the other: the first without a receipt is the one that its ERROR is about.
                sent[i] = Sent.REFUSED
                log.warning("publish.refused", channel=messages[i].channel, id=messages[i].id, why=link.said)
                return i + 1
        return len(messages)

    async def _lanes_of(self, link: Link, channel: str) -> int:
        """As many as there are, whatever our own settings say; 0: there is no such channel. Known for a connection: a
        broker that comes back may have lost its data, and would drop what is sent to queues that it has not."""
        async with self._asking:
            if channel not in self._lanes:
                lanes, _ = await markers(link, channel)
                if not lanes:
                    return 0
                self._lanes[channel] = lanes
            return self._lanes[channel]

    async def _connected(self) -> Link:
        async with self._connecting:
            if self._link is None or self._link.lost.is_set():
                self._lanes = {}
                self._link = await Link.connect(self._address)
            return self._link

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


async def _wait(link: Link, answers: Collection[asyncio.Future[Sent]]) -> None:
    """Until each is there. When none comes for too long, the connection is given up, and they are UNKNOWN."""
    waiting = set(answers)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=ANSWER_SECONDS)
        if not done:
            link.abort(f"no receipt within {ANSWER_SECONDS:.0f} s")
