"""Publishes to Valkey: XADDs in one go, in order, each confirmed by its answer."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import Sent
from ftgo_messaging.transports.valkey.server import PATIENCE, Address, connect, full, is_passing, reach
from ftgo_messaging.transports.valkey.streams import CUT_EVERY, DATA, cut, lanes_of, stream

log = structlog.get_logger("ftgo.valkey")

MAX_BYTES = 1_000_000
_REQUEST_BYTES = 1_000_000
_STOP_SECONDS = 2.0

_Ready = tuple[int, str, list[bytes | str], int]
"""Its place among what is to be published, the stream, the fields, and how many bytes."""


class ValkeyPublisher:
    """Publishes one batch after the other, on one connection. A channel has the lanes that it was declared with."""

    def __init__(self, address: Address, client: str) -> None:
        self._address = address
        self._name = client
        self._client: Redis | None = None
        self._lanes: dict[str, int] = {}
        self._written: set[str] = set()
        self._cut_at = 0.0
        self._busy = asyncio.Lock()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        async with self._busy:
            return await self._publish(messages)

    async def _publish(self, messages: Sequence[Message]) -> list[Sent]:
        client = self._client = self._client or connect(self._address, self._name)
        async with reach(self._address, PATIENCE):
            for channel in {x.channel for x in messages} - self._lanes.keys():
                if lanes := await lanes_of(client, channel):
                    self._lanes[channel] = lanes
        fates = [(Sent.UNKNOWN, "")] * len(messages)
        for request in _requests(self._entries(messages, fates)):
            try:
                async with reach(self._address, PATIENCE), client.pipeline(transaction=False) as pipe:
                    for _, key, fields, _ in request:
                        pipe.execute_command("XADD", key, "NOMKSTREAM", "*", *fields)
                    answers = await pipe.execute(raise_on_error=False)
            except TransientError as away:
                # What comes behind is not sent. The next call asks for the lanes, and so whether the broker is there.
                self._lanes.clear()
                if all(sent is Sent.UNKNOWN for sent, _ in fates):
                    raise
                log.warning("publish.failed", client=self._name, error=str(away))
                break
            for (i, key, _, _), answer in zip(request, answers, strict=True):
                fates[i] = self._fate(key, answer)
                self._written.add(key)
        for (sent, reason), count in Counter(fate for fate in fates if fate[1]).items():
            log.error("publish.failed", client=self._name, sent=sent, count=count, of=len(messages), reason=reason)
        await self._cut(client)
        return [sent for sent, _ in fates]

    def _entries(self, messages: Sequence[Message], fates: list[tuple[Sent, str]]) -> Iterator[_Ready]:
        for i, message in enumerate(messages):
            fields: list[bytes | str] = [part for header in message.headers.items() for part in header]
            fields += (m.KEY, message.key, DATA, message.body)
            size = sum(len(x) if isinstance(x, bytes) else len(x.encode()) for x in fields)
            lanes = self._lanes.get(message.channel)
            if lanes is None:
                reason = f"There is no channel {message.channel} at {self._address}: declare it before it is used."
                fates[i] = (Sent.REFUSED, reason)
            elif size > MAX_BYTES:
                reason = f"A message of {message.channel} is larger than {MAX_BYTES} bytes: send a reference to it."
                fates[i] = (Sent.REFUSED, reason)
            else:
                yield i, stream(message.channel, lane_of(message.key, lanes)), fields, size

    def _fate(self, key: str, answer: object) -> tuple[Sent, str]:
        if answer is None:
            self._lanes.pop(key.rpartition(":")[0], None)
            return Sent.REFUSED, f"The stream {key} is gone from {self._address}: declare its channel again."
        if isinstance(answer, OutOfMemoryError):
            return Sent.REFUSED, full(self._address)
        if isinstance(answer, ResponseError):
            known = Sent.UNKNOWN if is_passing(answer) else Sent.REFUSED
            return known, f"Valkey at {self._address} does not write to {key}: {answer}."
        return Sent.CONFIRMED, ""

    async def _cut(self, client: Redis) -> None:
        """At times, delete what nobody needs: also of channels that have no reader."""
        now = asyncio.get_running_loop().time()
        if now < self._cut_at:
            return
        self._cut_at = now + CUT_EVERY
        written, self._written = sorted(self._written), set()
        try:
            async with reach(self._address, PATIENCE):
                await cut(client, written, self._address.keep)
        except Exception as error:
            log.warning("streams.not_cut", error=repr(error))

    async def close(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._busy.acquire(), _STOP_SECONDS)
            self._busy.release()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _requests(ready: Iterator[_Ready]) -> Iterator[list[_Ready]]:
    """In their order, about 1 MB together."""
    request: list[_Ready] = []
    size = 0
    for each in ready:
        if request and size + each[3] > _REQUEST_BYTES:
            yield request
            request, size = [], 0
        request.append(each)
        size += each[3]
    if request:
        yield request
