"""The proxy forwards faithfully, and misbehaves exactly as asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ftgo_local.ports import free_port
from proxy import Proxy

Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A proxy before a server that answers with what it hears; the list holds what the server has heard."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = Proxy(free_port(), server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy, heard
    finally:
        await proxy.stop()
        server.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Talk]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def say(talk: Talk, text: bytes, patience: float = 5.0) -> bytes:
    talk[1].write(text)
    async with asyncio.timeout(patience):
        return await talk[0].read(1000)


async def test_it_forwards_until_told_otherwise() -> None:
    async with echo() as (proxy, _), connected(proxy) as talk:
        assert await say(talk, b"one") == b"one"
        assert await say(talk, b"two") == b"two"


async def test_what_was_held_flows_on() -> None:
    async with echo() as (proxy, heard), connected(proxy) as talk:
        await say(talk, b"one")
        proxy.hold()
        with pytest.raises(TimeoutError):
            await say(talk, b"two", patience=0.3)
        assert heard == [b"one"]
        proxy.heal()
        async with asyncio.timeout(5):
            assert await talk[0].read(1000) == b"two"


async def test_dropped_answers_reach_nobody_and_the_connection_is_reset() -> None:
    async with echo() as (proxy, heard), connected(proxy) as talk:
        await say(talk, b"one")
        proxy.drop_answers()
        with pytest.raises(TimeoutError):
            await say(talk, b"two", patience=0.3)
        assert heard == [b"one", b"two"]
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await say(talk, b"three")
        async with connected(proxy) as fresh:
            assert await say(fresh, b"four") == b"four"


async def test_a_half_open_connection_is_silent_until_it_is_reset() -> None:
    async with echo() as (proxy, heard), connected(proxy) as talk:
        await say(talk, b"one")
        proxy.half_open()
        with pytest.raises(TimeoutError):
            await say(talk, b"two", patience=0.3)
        assert heard == [b"one"]
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await say(talk, b"three")


async def test_a_reset_is_seen_at_once() -> None:
    async with echo() as (proxy, _), connected(proxy) as talk:
        await say(talk, b"one")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await say(talk, b"two")


async def test_delay_comes_in_both_directions() -> None:
    async with echo() as (proxy, _), connected(proxy) as talk:
        await say(talk, b"one")
        proxy.delay(0.2)
        before = asyncio.get_running_loop().time()
        assert await say(talk, b"two") == b"two"
        assert asyncio.get_running_loop().time() - before >= 0.4
