"""NATS JetStream: a durable of the witness' own on each stream acknowledges nothing, so everything stays."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote
from zlib import crc32

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from topology import LANES, SUBSCRIPTIONS, TOPICS

from wires import Raw
from wires.common import QueueEar, ended

_DURABLE = "chaos-witness"
_PREFIX = "ce-"
_FOR_EVER = 24 * 3600.0


class NatsWire:
    keeps = "every stream from its first message, which a durable of its own keeps there: the raw log"
    exact = True
    trouble = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)

    def __init__(self, url: str) -> None:
        self._url = url

    async def bind(self) -> None:
        config = ConsumerConfig(
            durable_name=_DURABLE,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_FOR_EVER,
            max_ack_pending=-1,
        )
        async with self._client() as client:
            for topic in TOPICS:
                await client.jetstream().add_consumer(_stream(topic), config)

    async def everything(self, topics: Iterable[str]) -> AsyncIterator[Raw]:
        async with self._client() as client:
            stream = client.jetstream()
            for topic in topics:
                left = (await stream.stream_info(_stream(topic))).state.messages
                if not left:
                    continue
                subscription = await stream.subscribe(_subjects(topic), stream=_stream(topic), ordered_consumer=True)
                for _ in range(left):
                    yield _raw(await subscription.next_msg(timeout=30))
                await subscription.unsubscribe()

    @asynccontextmanager
    async def listen(self, topics: Sequence[str], positions: MutableMapping[Any, Any]) -> AsyncIterator[QueueEar]:
        async with self._client() as client:
            heard: asyncio.Queue[Raw] = asyncio.Queue()

            async def hear(message: Msg) -> None:
                raw = _raw(message)
                positions[raw.topic] = raw.place + 1
                heard.put_nowait(raw)

            for topic in topics:
                config = ConsumerConfig(
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=positions.get(topic, 1)
                )
                await client.jetstream().subscribe(
                    _subjects(topic), stream=_stream(topic), cb=hear, ordered_consumer=True, config=config
                )
            yield QueueEar(heard)

    @asynccontextmanager
    async def speak(self) -> AsyncIterator["_Voice"]:
        async with self._client() as client:
            yield _Voice(client)

    async def lags(self) -> dict[str, int]:
        result = {}
        async with self._client() as client:
            for subscription in SUBSCRIPTIONS:
                name, behind = subscription["consumer"], 0
                for topic in subscription["topics"]:
                    for lane in range(LANES):
                        found = await client.jetstream().consumer_info(_stream(topic), f"{name}-{lane}")
                        behind += (found.num_pending or 0) + (found.num_ack_pending or 0)
                result[name] = behind
        return result

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        async def quiet(_: Exception) -> None:
            """What goes wrong is raised where it matters."""

        client = await nats.connect(self._url, connect_timeout=5, allow_reconnect=False, error_cb=quiet)
        try:
            yield client
        finally:
            await ended(client.close())


class _Voice:
    def __init__(self, client: Client) -> None:
        self._stream = client.jetstream()

    async def again(self, raw: Raw, **changed: str) -> None:
        headers = {**raw.native, **{_PREFIX + name: value for name, value in changed.items()}}
        await self._stream.publish(f"ftgo.{raw.topic}.{raw.lane}", raw.body or b"", timeout=10, headers=headers)

    async def put(self, topic: str, key: str, headers: Mapping[str, str], body: bytes) -> None:
        own = {_PREFIX + name: value for name, value in {**headers, "partitionkey": key}.items()}
        lane = crc32(key.encode()) % LANES
        await self._stream.publish(f"ftgo.{topic}.{lane}", body, timeout=10, headers=own)


def _stream(topic: str) -> str:
    return topic.replace(".", "__")


def _subjects(topic: str) -> str:
    return f"ftgo.{topic}.*"


def _raw(message: Msg) -> Raw:
    topic, _, lane = message.subject.removeprefix("ftgo.").rpartition(".")
    native = message.headers or {}
    headers: dict[str, str | None] = {name.removeprefix(_PREFIX): unquote(value) for name, value in native.items()}
    key = headers.pop("partitionkey", None)
    return Raw(topic, int(lane), message.metadata.sequence.stream, key, headers, message.data, native)
