"""ActiveMQ: a queue of the witness' own behind the virtual topic of each lane, read to its end when all is over."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import quote, unquote
from zlib import crc32

from topology import LANES, SUBSCRIPTIONS, TOPICS

from wires import Raw
from wires.common import drained
from wires.stomp import Frame, Stomp, StompError

_WITNESS = "chaos-witness"
_MARKER = "chaos-marker"
_LIBRARYS_MARKER = "ftgo-lanes"
_PREFIX = "ce-"
_TOPIC = "/topic/VirtualTopic."
_OF_THE_BROKER = frozenset(
    {"destination", "original-destination", "message-id", "subscription", "ack", "expires", "priority", "persistent"}
    | {"timestamp", "redelivered", "content-length", "browser"}
)


class ActiveMqWire:
    keeps = "a queue of its own behind each lane's virtual topic, made before the load"
    exact = False  # whether a browser sees what is in a member's hand is for ActiveMQ to say
    trouble = (StompError, OSError, TimeoutError)

    def __init__(self, url: str) -> None:
        self._url = url

    async def bind(self) -> None:
        """A queue that never held a message would be forgotten in a crash of the broker."""
        async with Stomp.connected(self._url) as stomp:
            for topic, lane in _lanes(TOPICS):
                await _mark(stomp, topic, lane)

    async def everything(self, topics: Iterable[str]) -> AsyncIterator[Raw]:
        async with Stomp.connected(self._url) as stomp:
            for topic, lane in _lanes(topics):
                await _mark(stomp, topic, lane)
                place = _queue(_WITNESS, topic, lane)
                await stomp.sure("SUBSCRIBE", {"id": place, "destination": place, "ack": "auto"})
                marks, places = 0, count()
                while marks < 2:  # the one of ``bind``, and that of just now
                    frame = await asyncio.wait_for(stomp.messages.get(), 30)
                    if _MARKER in frame.headers:
                        marks += 1
                    else:
                        yield _raw(topic, lane, next(places), frame)
                await stomp.sure("UNSUBSCRIBE", {"id": place})

    @asynccontextmanager
    async def listen(self, topics: Sequence[str], positions: MutableMapping[Any, Any]) -> AsyncIterator["_Ear"]:
        """To the topics themselves, which give what comes while one is connected."""
        async with Stomp.connected(self._url) as stomp:
            for topic, lane in _lanes(topics):
                place = f"{_TOPIC}{topic}.{lane}"
                await stomp.sure("SUBSCRIBE", {"id": place, "destination": place, "ack": "auto"})
            yield _Ear(stomp)

    @asynccontextmanager
    async def speak(self) -> AsyncIterator["_Voice"]:
        async with Stomp.connected(self._url) as stomp:
            yield _Voice(stomp)

    async def lags(self) -> dict[str, int]:
        result = {}
        async with Stomp.connected(self._url) as stomp:
            for subscription in SUBSCRIPTIONS:
                name, waiting = subscription["consumer"], 0
                for topic, lane in _lanes(subscription["topics"]):
                    place = _queue(name, topic, lane)
                    headers = {"id": place, "destination": place, "ack": "auto", "browser": "true"}
                    await stomp.sure("SUBSCRIBE", headers)
                    while (frame := await asyncio.wait_for(stomp.messages.get(), 10)).headers.get("browser") != "end":
                        waiting += _LIBRARYS_MARKER not in frame.headers
                    await stomp.sure("UNSUBSCRIBE", {"id": place})
                result[name] = waiting
        return result


class _Ear:
    def __init__(self, stomp: Stomp) -> None:
        self._stomp = stomp

    async def read(self, seconds: float) -> list[Raw]:
        frames = await drained(self._stomp.messages, seconds)
        if self._stomp.lost:
            raise StompError("the connection is lost")
        found = []
        for frame in frames:
            topic, _, lane = frame.headers["subscription"].removeprefix(_TOPIC).rpartition(".")
            found.append(_raw(topic, int(lane), 0, frame))
        return found


class _Voice:
    def __init__(self, stomp: Stomp) -> None:
        self._stomp = stomp

    async def again(self, raw: Raw, **changed: str) -> None:
        headers = {**raw.native, **{_PREFIX + name: quote(value) for name, value in changed.items()}}
        await self._send(raw.topic, raw.lane, headers, raw.body or b"")

    async def put(self, topic: str, key: str, headers: Mapping[str, str], body: bytes) -> None:
        own = {_PREFIX + name: quote(value) for name, value in {**headers, "partitionkey": key}.items()}
        await self._send(topic, crc32(key.encode()) % LANES, own, body)

    async def _send(self, topic: str, lane: int, headers: Mapping[str, str], body: bytes) -> None:
        own = {**headers, "destination": f"{_TOPIC}{topic}.{lane}", "persistent": "true"}
        await self._stomp.sure("SEND", own, body)


def _lanes(topics: Iterable[str]) -> Iterable[tuple[str, int]]:
    return ((topic, lane) for topic in topics for lane in range(LANES))


def _queue(consumer: str, topic: str, lane: int) -> str:
    return f"/queue/Consumer.{consumer}.VirtualTopic.{topic}.{lane}"


async def _mark(stomp: Stomp, topic: str, lane: int) -> None:
    place = _queue(_WITNESS, topic, lane)
    await stomp.sure("SEND", {"destination": place, "persistent": "true", _MARKER: "here"})


def _raw(topic: str, lane: int, place: int, frame: Frame) -> Raw:
    native = {name: value for name, value in frame.headers.items() if name not in _OF_THE_BROKER}
    headers: dict[str, str | None] = {_attribute(unquote(name)): unquote(value) for name, value in native.items()}
    key = headers.pop("partitionkey", None)
    return Raw(topic, lane, place, key, headers, frame.body, native)


def _attribute(name: str) -> str:
    return "datacontenttype" if name == "content-type" else name.removeprefix(_PREFIX)
