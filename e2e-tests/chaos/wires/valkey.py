"""Valkey: a group of the witness' own on each stream stays at its beginning, so nothing is cut off: the raw log."""

from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from zlib import crc32

from redis.asyncio import Redis
from redis.exceptions import RedisError
from topology import LANES, SUBSCRIPTIONS, TOPICS

from wires import Raw

_GROUP = "chaos-witness"
_PAGE = 1000
_APART = ("partitionkey", "data")


class ValkeyWire:
    keeps = "every stream from its first entry, which a group of its own keeps there: the raw log"
    exact = True
    trouble = (RedisError, OSError, TimeoutError)

    def __init__(self, url: str) -> None:
        self._url = urlunsplit(urlsplit(url)._replace(scheme="redis", query=""))

    async def bind(self) -> None:
        async with self._client() as client:
            for topic in TOPICS:
                for lane in range(LANES):
                    await client.execute_command("XGROUP CREATE", _stream(topic, lane), _GROUP, "0")

    async def everything(self, topics: Iterable[str]) -> AsyncIterator[Raw]:
        async with self._client() as client:
            for topic in topics:
                for lane in range(LANES):
                    last, place = "-", 0
                    while page := await client.xrange(_stream(topic, lane), last, "+", count=_PAGE):
                        for _, fields in page:
                            yield _raw(topic, lane, place, fields)
                            place += 1
                        last = f"({page[-1][0].decode()}"

    @asynccontextmanager
    async def listen(self, topics: Sequence[str], positions: MutableMapping[Any, Any]) -> AsyncIterator["_Ear"]:
        for topic in topics:
            for lane in range(LANES):
                positions.setdefault(_stream(topic, lane), "0")
        async with self._client() as client:
            yield _Ear(client, positions)

    @asynccontextmanager
    async def speak(self) -> AsyncIterator["_Voice"]:
        async with self._client() as client:
            yield _Voice(client)

    async def lags(self) -> dict[str, int]:
        """What stands behind each group's position, counted up to a page."""
        result = {}
        async with self._client() as client:
            for subscription in SUBSCRIPTIONS:
                name, behind = subscription["consumer"], 0
                for topic in subscription["topics"]:
                    for lane in range(LANES):
                        groups = await client.xinfo_groups(_stream(topic, lane))
                        at = next(g["last-delivered-id"] for g in groups if g["name"].decode() == name)
                        entries = await client.xrange(_stream(topic, lane), f"({at.decode()}", "+", count=_PAGE)
                        behind += len(entries)
                result[name] = behind
        return result

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        client = Redis.from_url(self._url, protocol=2, socket_timeout=10, socket_connect_timeout=5)
        try:
            yield client
        finally:
            await client.aclose()


class _Ear:
    def __init__(self, client: Redis, positions: MutableMapping[str, str]) -> None:
        self._client = client
        self._positions = positions

    async def read(self, seconds: float) -> list[Raw]:
        found = []
        answer = await self._client.xread(dict(self._positions), count=100, block=max(1, int(seconds * 1000)))
        for key, entries in answer or ():
            name = key.decode()
            topic, _, lane = name.rpartition(":")
            found += [_raw(topic, int(lane), 0, fields) for _, fields in entries]
            self._positions[name] = entries[-1][0].decode()
        return found


class _Voice:
    def __init__(self, client: Redis) -> None:
        self._client = client

    async def again(self, raw: Raw, **changed: str) -> None:
        fields = {**raw.native, **{name.encode(): value.encode() for name, value in changed.items()}}
        await self._add(raw.topic, raw.lane, fields)

    async def put(self, topic: str, key: str, headers: Mapping[str, str], body: bytes) -> None:
        fields = {name.encode(): value.encode() for name, value in headers.items()}
        fields |= {b"partitionkey": key.encode(), b"data": body}
        await self._add(topic, crc32(key.encode()) % LANES, fields)

    async def _add(self, topic: str, lane: int, fields: Mapping[bytes, bytes]) -> None:
        await self._client.xadd(_stream(topic, lane), dict(fields), nomkstream=True)  # type: ignore[arg-type]


def _stream(topic: str, lane: int) -> str:
    return f"{topic}:{lane}"


def _raw(topic: str, lane: int, place: int, fields: Mapping[bytes, bytes]) -> Raw:
    named = {name.decode(errors="backslashreplace"): value for name, value in fields.items()}
    headers = {n: v.decode(errors="backslashreplace") for n, v in named.items() if n not in _APART}
    key = named.get("partitionkey")
    return Raw(topic, lane, place, None if key is None else key.decode(), headers, named.get("data"), fields)
