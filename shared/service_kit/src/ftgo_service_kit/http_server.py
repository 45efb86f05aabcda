"""The HTTP server of a process: uvicorn in the service's own loop, with bounded connections and an orderly end."""

import asyncio
import contextlib
import functools
import os
import resource
import socket

import structlog
import uvicorn
from starlette.types import ASGIApp

from ftgo_service_kit.connections import Connections
from ftgo_service_kit.http_protocol import HttpProtocol

log = structlog.get_logger("ftgo.http")

_ACCEPT_SECONDS = 0.1
_ARRIVE_SECONDS = 0.4
IDLE_SECONDS = 75
"""How long a connection without a request stays open. Longer than clients and proxies keep one (httpx 5 s, aiohttp 15,
nginx 60): a client must be the first to close, or its next request may be on its way when the service does. Where room
is needed, idle ones go earlier."""
_LAST = (b"connection", b"close")
_SOCKET_BUFFER = 64 * 1024
"""Each way, doubled by the kernel. Its own choice grows to several MB, and counts as memory of the container."""
_OTHER_FILES = 300
"""File descriptors for the database, the broker, logs and what else a process opens."""


class HttpServer(uvicorn.Server):
    def __init__(self, app: ASGIApp, host: str, port: int, connections: Connections) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                access_log=False,
                log_config=None,
                lifespan="off",
                loop="none",
                http=functools.partial(HttpProtocol, connections=connections),  # type: ignore[arg-type]
                ws="none",
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=5,
                server_header=False,
            )
        )
        self._connections = connections
        # Signals are the service's business: HTTP is only the first of its parts to stop.
        self.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

    async def run_until_told(self) -> None:
        """Serve until ``should_exit``. Raises OSError when the port is taken."""
        try:
            await self.serve()
        except SystemExit as end:
            # Uvicorn's way to say that the port is taken. Let through, it would end the loop before the other parts.
            raise OSError(f"cannot listen on {self.config.host}:{self.config.port}") from end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._connections.limit = min(self._connections.limit, _open_files(self._connections.limit))
        await super().startup(sockets)
        for listener in self.servers:
            for listening in listener.sockets:
                with _same(listening) as listening_too:  # what it accepts inherits this
                    listening_too.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
                    listening_too.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER)

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn's, ten times a second."""
        if counter % 10 == 0:
            self._connections.sweep()
        return await super().on_tick(counter)

    async def stop_listening(self) -> None:
        """From now on connections are refused, and whoever has one already is still served: with an answer that says
        that it is the last one there. Uvicorn alone would close those whose request is on its way, and a client cannot
        know whether it was carried out."""
        if not getattr(self, "servers", None):
            return  # it has ended, or never began
        self.config.encoded_headers.append(_LAST)  # for all seconds from the next one on
        self.server_state.default_headers = [*self.server_state.default_headers, _LAST]
        for listener in self.servers:
            for listening in listener.sockets:
                # Nobody joins the queue of connections any more, which a close would reset.
                with _same(listening) as same:
                    same.listen(0)
        await asyncio.sleep(_ACCEPT_SECONDS)
        for listener in self.servers:
            listener.close()
        await asyncio.sleep(_ARRIVE_SECONDS)


def _same(listening: socket.socket) -> socket.socket:
    """Uvloop's sockets take no options."""
    return socket.socket(fileno=os.dup(listening.fileno()))


def _open_files(connections: int) -> int:
    """How many of these connections the process may have open, after it has asked for as much. At the limit, accept()
    fails again and again, and nobody gets in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            log.warning("http.few_open_files", limit=hard, wanted=wanted, cure="raise ulimit -n")
        return max(1, soft - _OTHER_FILES)
    return connections
