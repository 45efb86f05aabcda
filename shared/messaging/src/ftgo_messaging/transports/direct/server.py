"""The receiver's side of HTTP/1.1: small and strict, for bodies of a bounded size. No exception ends it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import h11
import structlog

from ftgo_messaging.transports.direct.registry import Address

log = structlog.get_logger("ftgo.direct")

MOST_BYTES = 2_000_000
"""Of a body."""
_MOST_CONNECTIONS = 64
_IDLE = 60.0
"""Seconds for which a connection may wait for its next request, and which one may take to arrive."""
_STOP = 2.0


class Request(NamedTuple):
    """``at_work`` tells the sender that it is not forgotten."""

    method: str
    target: str
    content_type: str
    body: bytes
    at_work: Callable[[], None]


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    retry_after: int | None = None


class _Bad(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Server:
    """``answer`` is cancelled when the sender is gone before it has ended."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    async def listen(self, address: Address) -> None:
        """Raises OSError."""
        self._server = await asyncio.start_server(self._connected, address.host, address.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        connection = self._connections[task] = _Connection(reader, writer, self._answer)
        try:
            await connection.serve()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it has gone, or we stop: there is nobody to tell
        except Exception as error:
            log.warning("direct.connection_failed", error=repr(error))
        finally:
            del self._connections[task]
            writer.close()

    async def stop(self) -> None:
        """Accept nobody, let end what is being answered (2 s), and close."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task, connection in self._connections.items():
            connection.last = True
            if not connection.busy:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_STOP)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[Request], Awaitable[Answer]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._http = h11.Connection(h11.SERVER)
        self.busy = False
        """A request has arrived and is not answered yet."""
        self.last = False
        """No other request is read."""

    async def serve(self) -> None:
        while not self.last:
            try:
                async with asyncio.timeout(_IDLE):
                    request = await self._read()
                if request is None:
                    return
                self.busy = True
                answer = await self._answered(request)
            except _Bad as bad:
                answer, self.last = bad.answer, True
            except h11.RemoteProtocolError as error:
                answer, self.last = Answer(error.error_status_hint, f"{error}\n".encode()), True
            await self._send(answer)
            self.busy = False
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _read(self) -> Request | None:
        """The next request; None when the connection was closed. Raises _Bad and RemoteProtocolError."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
                length = dict(head.headers).get(b"content-length", b"0")
                if int(length) > MOST_BYTES:
                    raise _Bad(Answer(413, b"the body is too large\n"))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MOST_BYTES:
                    raise _Bad(Answer(413, b"the body is too large\n"))
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                kind = dict(head.headers).get(b"content-type", b"").decode("latin-1")
                return Request(head.method.decode(), head.target.decode("latin-1"), kind, bytes(body), self._at_work)
            else:
                return None

    async def _answered(self, request: Request) -> Answer:
        """Raises CancelledError when the sender is gone."""
        answering = asyncio.ensure_future(self._answer(request))
        gone = asyncio.ensure_future(self._reader.read(1))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not answering.done():
                if not gone.result():
                    raise ConnectionResetError("the sender has gone")
                await asyncio.wait({answering})  # it sends more before it has the answer: that is not read
            self.last = self.last or gone.done()
            return answering.result()
        except (OSError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.error("direct.answer_failed", error=repr(error))
            return Answer(500)
        finally:
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    def _at_work(self) -> None:
        with contextlib.suppress(h11.LocalProtocolError):  # the answer is on its way already
            self._write(h11.InformationalResponse(status_code=102, headers=[]))

    def _write(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def _send(self, answer: Answer) -> None:
        headers = [("content-type", "application/json"), ("content-length", str(len(answer.body)))]
        if answer.status >= 400:
            headers[0] = ("content-type", "text/plain; charset=utf-8")
        if answer.retry_after is not None:
            headers.append(("retry-after", str(answer.retry_after)))
        if self.last:
            headers.append(("connection", "close"))
        with contextlib.suppress(h11.LocalProtocolError):  # what it sent was no HTTP at all
            self._write(h11.Response(status_code=answer.status, headers=headers))
            self._write(h11.Data(data=answer.body))
            self._write(h11.EndOfMessage())
            await self._writer.drain()
