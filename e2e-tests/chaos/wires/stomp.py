"""STOMP 1.2, as much of it as a witness needs."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}
_MEANS = {"\\": "\\", "n": "\n", "r": "\r", "c": ":"}
_PATIENCE = 15.0


class StompError(Exception):
    """The broker has refused, or is gone."""


@dataclass(frozen=True)
class Frame:
    command: str
    headers: dict[str, str]
    body: bytes


class Stomp:
    """One connection. ``messages`` are what was subscribed to, in the order in which it came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.messages: asyncio.Queue[Frame] = asyncio.Queue()
        self.lost = False
        self._reader = reader
        self._writer = writer
        self._receipts: dict[str, asyncio.Future[None]] = {}
        self._numbers = count()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator["Stomp"]:
        parts = urlsplit(url)
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
        stomp = cls(reader, writer)
        try:
            stomp._write("CONNECT", {"accept-version": "1.2", "host": "chaos", "heart-beat": "0,0"})
            await asyncio.wait_for(stomp._promise("CONNECTED"), _PATIENCE)
            yield stomp
        finally:
            stomp._reading.cancel()
            await asyncio.gather(stomp._reading, return_exceptions=True)
            writer.transport.abort()

    async def sure(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a frame, and wait until the broker has carried it out. Raises StompError and TimeoutError."""
        name = f"r{next(self._numbers)}"
        promise = self._promise(name)
        self._write(command, {**headers, "receipt": name}, body)
        await asyncio.wait_for(promise, _PATIENCE)

    def _promise(self, name: str) -> "asyncio.Future[None]":
        if self.lost:
            raise StompError("the connection is lost")
        self._receipts[name] = promise = asyncio.get_running_loop().create_future()
        return promise

    def _write(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        lines = [command, *(f"{_escaped(n)}:{_escaped(v)}" for n, v in headers.items()), f"content-length:{len(body)}"]
        if command != "SEND":
            lines.pop()
        self._writer.write("\n".join(lines).encode() + b"\n\n" + body + b"\0")

    async def _read(self) -> None:
        why = "the connection is lost"
        try:
            while True:
                frame = await self._frame()
                match frame.command:
                    case "MESSAGE":
                        self.messages.put_nowait(frame)
                    case "RECEIPT":
                        self._keep(frame.headers["receipt-id"])
                    case "CONNECTED":
                        self._keep("CONNECTED")
                    case _:
                        why = frame.headers.get("message", frame.command)
                        return
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            why = repr(error)
        finally:
            self.lost = True
            for promise in self._receipts.values():
                if not promise.done():
                    promise.set_exception(StompError(why))
            self._receipts.clear()

    def _keep(self, name: str) -> None:
        promise = self._receipts.pop(name, None)
        if promise is not None and not promise.done():
            promise.set_result(None)

    async def _frame(self) -> Frame:
        command = ""
        while not command:  # heart-beats, and what may stand between frames
            command = (await self._reader.readuntil(b"\n")).decode().strip()
        headers: dict[str, str] = {}
        while line := (await self._reader.readuntil(b"\n")).decode(errors="backslashreplace").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers.setdefault(_meant(name), _meant(value))
        if "content-length" in headers:
            body = await self._reader.readexactly(int(headers["content-length"]))
            await self._reader.readexactly(1)
        else:
            body = (await self._reader.readuntil(b"\0"))[:-1]
        return Frame(command, headers, body)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)


def _meant(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _MEANS.get(found[1], found[1]), text)
