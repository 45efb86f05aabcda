"""Which version of a server runs: what it says itself, or what was fetched."""

import asyncio
import json
import re
from contextlib import suppress

from ftgo_local.brokers.kinds import Broker


async def version_of(name: str, unit: Broker) -> str:
    """Of a server that runs; empty when it does not tell."""
    asked = {"nats": _nats, "valkey": _valkey}.get(name)
    if asked is not None:
        return await asked(unit.port)
    known = getattr(unit, "version", "") or getattr(unit, "known_version", str)()
    found = re.search(r"\d+(\.\d+)+", str(known))
    return found[0] if found else ""


async def _nats(port: int) -> str:
    """It greets with it."""
    greeting = await _answer(port, b"", b"\r\n")
    return str(json.loads(greeting.removeprefix(b"INFO "))["version"])


async def _valkey(port: int) -> str:
    answer = await _answer(port, b"INFO server\r\n", b"\r\n\r\n")
    lines = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
    return lines.get("valkey_version") or lines["redis_version"]


async def _answer(port: int, question: bytes, end: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(question)
        async with asyncio.timeout(5):
            if not question:
                return await reader.readuntil(end)
            size = int((await reader.readuntil(b"\r\n"))[1:])
            return await reader.readexactly(size)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
