"""The sender's side of HTTP/1.1: connections that are kept, one exchange at a time on each."""

import asyncio
import time
from collections import defaultdict
from typing import NamedTuple

import h11

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.direct.registry import Address

_ANSWER_BYTES = 1_000_000
_CONNECT = 1.0
_KEPT = 20.0
"""Seconds for which a connection without use is kept: less than the server does."""


class Patience(NamedTuple):
    """Seconds without a word after which a receiver is given up (while it is at work it says so, with 102), and seconds
    for an answer in all: other receivers of the same sender wait meanwhile."""

    silence: float
    longest: float


class Silent(TransientError):
    """It accepted the connection, and said nothing in time: it is paused, overloaded, or its network is."""


class Client:
    """Connections to all members that one publisher sends to."""

    def __init__(self, name: str) -> None:
        self._name = "".join(c if c.isascii() and c.isprintable() else "?" for c in name).strip() or "ftgo"
        self._kept: dict[Address, list[tuple[_Link, float]]] = defaultdict(list)

    async def ask(
        self, address: Address, method: str, target: str, body: bytes, patience: Patience
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises TransientError when there is none; Silent if it was waited for. Cut
        off, it closes the connection: the receiver drops what it has not begun."""
        link = await self._link(address)
        headers = [
            ("host", f"{address.host}:{address.port}"),
            ("user-agent", self._name),
            ("content-type", "application/cloudevents-batch+json"),
            ("content-length", str(len(body))),
        ]
        try:
            async with asyncio.timeout(patience.longest):
                answer = await link.exchange(
                    h11.Request(method=method, target=target, headers=headers), body, patience.silence
                )
        except TimeoutError as error:
            link.abort()
            raise Silent(f"{address.host}:{address.port} has not answered in time") from error
        except (OSError, EOFError, h11.ProtocolError) as error:
            link.abort()
            raise TransientError(f"{address.host}:{address.port} has gone: {error!r}") from error
        except BaseException:
            link.abort()
            raise
        if link.again():
            self._kept[address].append((link, time.monotonic()))
        else:
            link.abort()
        return answer

    async def _link(self, address: Address) -> "_Link":
        kept = self._kept[address]
        while kept:
            link, since = kept.pop()
            if time.monotonic() - since < _KEPT and not link.reader.at_eof():
                return link
            link.abort()
        try:
            async with asyncio.timeout(_CONNECT):
                return _Link(*await asyncio.open_connection(address.host, address.port))
        except TimeoutError as error:
            raise Silent(f"{address.host}:{address.port} lets nobody connect") from error
        except OSError as error:
            raise TransientError(f"{address.host}:{address.port} is away: {error}") from error

    def close(self) -> None:
        for kept in self._kept.values():
            for link, _ in kept:
                link.abort()
        self._kept.clear()


class _Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def exchange(self, request: h11.Request, body: bytes, silence: float) -> tuple[int, bytes]:
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        async with asyncio.timeout(silence):
            await self._writer.drain()
        status, parts, size = 0, [], 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(silence):
                    self._http.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > _ANSWER_BYTES:
                    raise EOFError("its answer has no end")
            elif isinstance(event, h11.EndOfMessage):
                return status, b"".join(parts)
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("it closed the connection")

    def again(self) -> bool:
        """Whether another exchange can follow."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def abort(self) -> None:
        self._writer.transport.abort()
