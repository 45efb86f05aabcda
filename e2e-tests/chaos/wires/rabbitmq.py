"""RabbitMQ: a queue of the witness' own for each channel, bound for all lanes, and so in the order of each."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from zlib import crc32

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError
from pamqp.commands import Basic
from topology import LANES, SUBSCRIPTIONS, TOPICS

from wires import Raw
from wires.common import QueueEar, ended

_PREFIX = "cloudEvents:"
_PERSISTENT = 2


class RabbitWire:
    keeps = "a durable queue of its own for each channel, bound before the load"
    exact = False  # of what is in a member's hand only RabbitMQ's own tools tell
    trouble = (AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)

    def __init__(self, url: str) -> None:
        self._url = url

    async def bind(self) -> None:
        async with self._channel() as amqp:
            for topic in TOPICS:
                await self._bind(amqp, _witness(topic), topic, durable=True)

    async def everything(self, topics: Iterable[str]) -> AsyncIterator[Raw]:
        async with self._channel() as amqp:
            for topic in topics:
                declared = await amqp.queue_declare(_witness(topic), passive=True)
                heard: asyncio.Queue[Raw] = asyncio.Queue()
                await self._consume(amqp, _witness(topic), topic, heard)
                for _ in range(declared.message_count or 0):
                    async with asyncio.timeout(30):
                        raw = await heard.get()
                    yield raw

    @asynccontextmanager
    async def listen(self, topics: Sequence[str], positions: MutableMapping[Any, Any]) -> AsyncIterator[QueueEar]:
        async with self._channel() as amqp:
            heard: asyncio.Queue[Raw] = asyncio.Queue()
            for topic in topics:
                queue = (await amqp.queue_declare("", exclusive=True, auto_delete=True)).queue
                assert queue is not None
                await self._bind(amqp, queue, topic)
                await self._consume(amqp, queue, topic, heard)
            yield QueueEar(heard)

    @asynccontextmanager
    async def speak(self) -> AsyncIterator["_Voice"]:
        async with self._channel() as amqp:
            yield _Voice(amqp)

    async def lags(self) -> dict[str, int]:
        result = {}
        async with self._channel() as amqp:
            for subscription in SUBSCRIPTIONS:
                name = subscription["consumer"]
                queues = [f"{topic}.{name}.{lane}" for topic in subscription["topics"] for lane in range(LANES)]
                found = [(await amqp.queue_declare(queue, passive=True)).message_count or 0 for queue in queues]
                result[name] = sum(found)
        return result

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        connection = await asyncio.wait_for(aiormq.connect(self._url), 10)
        try:
            yield await connection.channel()
        finally:
            await ended(connection.close())

    async def _bind(self, amqp: AbstractChannel, queue: str, topic: str, *, durable: bool = False) -> None:
        if durable:
            await amqp.queue_declare(queue, durable=True)
        for lane in range(LANES):
            await amqp.queue_bind(queue, topic, str(lane))

    async def _consume(self, amqp: AbstractChannel, queue: str, topic: str, heard: "asyncio.Queue[Raw]") -> None:
        places = count()

        async def hear(message: DeliveredMessage) -> None:
            heard.put_nowait(_raw(topic, next(places), message))

        await amqp.basic_consume(queue, hear, no_ack=True)


class _Voice:
    def __init__(self, amqp: AbstractChannel) -> None:
        self._amqp = amqp

    async def again(self, raw: Raw, **changed: str) -> None:
        was: Basic.Properties = raw.native
        headers = {**(was.headers or {}), **{_PREFIX + name: value for name, value in changed.items()}}
        await self._publish(raw.topic, raw.lane, raw.body or b"", headers, changed.get("id", was.message_id), was)

    async def put(self, topic: str, key: str, headers: Mapping[str, str], body: bytes) -> None:
        own = {_PREFIX + name: value for name, value in {**headers, "partitionkey": key}.items()}
        await self._publish(topic, crc32(key.encode()) % LANES, body, own, headers.get("id"))

    async def _publish(
        self, topic: str, lane: int, body: bytes, headers: Any, name: str | None, was: Basic.Properties | None = None
    ) -> None:
        kind = was.content_type if was else None
        properties = Basic.Properties(headers=headers, message_id=name, content_type=kind, delivery_mode=_PERSISTENT)
        await self._amqp.basic_publish(body, exchange=topic, routing_key=str(lane), properties=properties, timeout=10)


def _witness(topic: str) -> str:
    return f"chaos-witness.{topic}"


def _raw(topic: str, place: int, message: DeliveredMessage) -> Raw:
    properties = message.header.properties
    headers = {name.removeprefix(_PREFIX): _text(value) for name, value in (properties.headers or {}).items()}
    if properties.content_type:
        headers["datacontenttype"] = properties.content_type
    key = headers.pop("partitionkey", None)
    return Raw(topic, int(message.routing_key or 0), place, key, headers, message.body, properties)


def _text(value: Any) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
