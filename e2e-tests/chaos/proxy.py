"""A TCP proxy that misbehaves when asked to: between a service and its database, and between all and Kafka."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CHUNK = 64 * 1024
# Close with a reset instead of an orderly end: l_onoff = 1, l_linger = 0.
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One client's connection and the one made for it to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    torn: bool = False  # bytes were swallowed: the stream must not go on


class Proxy:
    """Listens on 127.0.0.1:``port`` and forwards to 127.0.0.1:``target``. One trouble at a time:

    delay(s)        every chunk arrives ``s`` seconds later, in both directions
    hold()          nothing moves in either direction; new connections are accepted and hear nothing
    drop_answers()  requests arrive at the server, its answers vanish
    half_open()     the server's side is closed, and the clients are not told
    reset()         all connections are reset, once

    ``heal()`` ends the trouble. What was held flows on; a connection that has lost bytes is reset.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.accepted = 0
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay = 0.0
        self._drops = False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()

    # -- trouble ---------------------------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        self._delay = seconds

    def hold(self) -> None:
        self._flows.clear()

    def drop_answers(self) -> None:
        self._drops = True

    def half_open(self) -> None:
        self._flows.clear()
        for link in self._links:
            link.torn = True
            link.server.transport.abort()

    def reset(self) -> None:
        for link in list(self._links):
            _reset(link.client)
            _reset(link.server)

    def heal(self) -> None:
        self._delay, self._drops = 0.0, False
        for link in list(self._links):
            if link.torn:
                _reset(link.client)
                _reset(link.server)
        self._flows.set()

    # -- forwarding ------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._flows.wait()
            try:
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                _reset(writer)  # as if nobody listened
                return
            with self._linked(_Link(writer, server_writer)) as link:
                pumps = [
                    asyncio.create_task(self._pump(reader, server_writer, link, answers=False)),
                    asyncio.create_task(self._pump(server_reader, writer, link, answers=True)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
                if link.torn and not self._flows.is_set():
                    await self._flows.wait()  # half-open: the client learns nothing until the trouble is over
        except asyncio.CancelledError:
            pass  # only stop() cancels; asyncio's stream server would log it
        finally:
            self._tasks.discard(task)
            writer.close()

    @contextlib.contextmanager
    def _linked(self, link: _Link) -> Iterator[_Link]:
        self._links.add(link)
        try:
            yield link
        finally:
            self._links.discard(link)
            link.server.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._drops and answers:
                    link.torn = True
                    continue
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
