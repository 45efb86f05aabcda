"""Publishes to SQS: each message into the queue of its lane of each reader, in order, ten in a request."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message, size_of
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.aws.address import Address
from ftgo_messaging.transports.aws.client import Gone, Link
from ftgo_messaging.transports.aws.sqs.queues import LOOK_SECONDS, Found, look
from ftgo_messaging.transports.cloudevents import to_envelope
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Sent

log = structlog.get_logger("ftgo.sqs")

LARGEST = 1_048_576
"""Bytes of a message, and of all in a request. SQS takes 1 MiB where the queue was made for it, as ours are:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html (``MessageBody``)"""
MAX_BYTES = 750_000
"""That as an envelope are a million, and leave room for headers that are longer there."""
_MOST = 10
_AT_ONCE = 24
_STOP_SECONDS = 2.0
_NOT_TAKEN = re.compile("[\ufffe\uffff]")
"""Characters of JSON that SQS does not take: as an escape it does."""


class _Entry(NamedTuple):
    """A message of a batch, by its number there, as it is sent."""

    number: int
    text: str
    size: int  # of the text, in bytes


_Fate = tuple[Sent, str]
_UNKNOWN: _Fate = (Sent.UNKNOWN, "")
_CONFIRMED: _Fate = (Sent.CONFIRMED, "")


class SqsPublisher:
    """Publishes one batch after the other. Each time a message is sent, it has another ``MessageDeduplicationId``: SQS
    swallows nothing, for the library itself drops what comes twice, also after more than five minutes."""

    def __init__(self, address: Address, client: str) -> None:
        self._name = client
        self._link = Link(address, "sqs", client)
        self._seen: dict[str, tuple[float, Found]] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._busy = asyncio.Lock()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        async with self._busy:
            return await self._publish(messages)

    async def _publish(self, messages: Sequence[Message]) -> list[Sent]:
        channels = {message.channel: await self._look(message.channel) for message in messages}
        fates: list[list[_Fate]] = [[] for _ in messages]
        queues: dict[str, list[_Entry]] = defaultdict(list)
        for i, message in enumerate(messages):
            found = channels[message.channel]
            text = _text(message)
            entry = _Entry(i, text, len(text.encode()))
            if reason := self._fault(message, found, entry.size):
                fates[i].append((Sent.REFUSED, reason))
                continue
            lane = lane_of(message.key, found.lanes)
            for reader, urls in found.readers.items():
                if lane in urls:
                    queues[urls[lane]].append(entry)
                else:
                    missing = f"The queue of {reader} for lane {lane} of {message.channel} is missing: declare it."
                    fates[i].append((Sent.UNKNOWN, missing))
        away = await asyncio.gather(*(self._fill(url, entries, fates) for url, entries in queues.items()))
        results = [_worst(each) for each in fates]
        if any(away) and all(sent is Sent.UNKNOWN for sent, _ in results):
            raise next(error for error in away if error)
        for (sent, reason), count in Counter(fate for fate in results if fate[1]).items():
            log.error("publish.failed", client=self._name, sent=sent, count=count, of=len(messages), reason=reason)
        return [sent for sent, _ in results]

    async def close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._busy.acquire()
                self._busy.release()
        await self._link.close()

    async def _look(self, channel: str) -> Found:
        now = asyncio.get_running_loop().time()
        at, found = self._seen.get(channel, (0.0, Found()))
        if not found.lanes or now > at + LOOK_SECONDS:
            found = await look(self._link, channel)
            self._seen[channel] = now, found
        return found

    def _fault(self, message: Message, found: Found, size: int) -> str:
        if not found.lanes:
            return f"There is no channel {message.channel} in SQS at {self._link.address}: declare it first."
        if size_of(message) > MAX_BYTES or size > LARGEST:
            return f"A message of {message.channel} is larger than {MAX_BYTES} bytes: send a reference to it."
        return ""

    async def _fill(self, url: str, entries: Sequence[_Entry], fates: list[list[_Fate]]) -> Exception | None:
        """One request after the other, until one does not go through: what comes behind is not sent. Returns the
        error when the broker is away."""
        left = [entry.number for entry in entries]
        away: Exception | None = None
        fate = _UNKNOWN
        for request in _requests(entries):
            try:
                async with self._at_once:
                    failed = await self._send(url, request)
            except Gone as error:
                self._seen.clear()
                fate = Sent.UNKNOWN, str(error)
                break
            except TransientError as error:
                self._seen.clear()
                away = error
                break
            except BrokerRefuses as error:
                fate = Sent.REFUSED, str(error)
                break
            for entry in request:
                fates[entry.number].append(failed.get(entry.number, _CONFIRMED))
            left = left[len(request) :]
            if failed:
                break
        for i in left:
            fates[i].append(fate)
        return away

    async def _send(self, url: str, request: Sequence[_Entry]) -> dict[int, _Fate]:
        """Which were not taken, and why."""
        lane = url.rpartition("--")[2].removesuffix(".fifo")
        entries = [
            {
                "Id": str(entry.number),
                "MessageBody": entry.text,
                "MessageGroupId": lane,
                "MessageDeduplicationId": new_id(),
            }
            for entry in request
        ]
        answer = await self._link.ask("send_message_batch", QueueUrl=url, Entries=entries)
        return {
            int(each["Id"]): (
                Sent.REFUSED if each.get("SenderFault") else Sent.UNKNOWN,
                f"SQS does not take it: {each.get('Code')} {each.get('Message', '')}",
            )
            for each in answer.get("Failed", ())
        }


def _text(message: Message) -> str:
    text = to_envelope(message).decode()
    return _NOT_TAKEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _requests(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    request: list[_Entry] = []
    size = 0
    for entry in entries:
        if request and (len(request) == _MOST or size + entry.size > LARGEST):
            yield request
            request, size = [], 0
        request.append(entry)
        size += entry.size
    if request:
        yield request


def _worst(fates: Sequence[_Fate]) -> _Fate:
    """Of what became of a message in the queues of its readers; without any it is confirmed."""
    for wanted in (Sent.REFUSED, Sent.UNKNOWN):
        for fate in fates:
            if fate[0] is wanted:
                return fate
    return _CONFIRMED
