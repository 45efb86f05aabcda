"""HTTP/1.1 as it may be served to strangers: uvicorn's protocol over llhttp, with bounds, and without its surprises.

Why this parser and this much of our own: docs/adr/0010. What uvicorn and llhttp alone would do is said at each method.
"""

import asyncio
import enum
import math
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ftgo_service_kit.connections import Connections
from ftgo_service_kit.problems import problem

MAX_HEAD = 32 * 1024
"""Bytes of the request line and all header lines."""
MAX_HEADERS = 100
MAX_FRAMING = 512 * 1024
"""Bytes of a chunked body that are not the body itself: sizes of chunks, their extensions, trailers."""
HIGH_WATER = 16 * 1024
"""Bytes of answers that wait in the process until the socket takes them, before the application is held up."""
HEAD_SECONDS = 10
"""Until the first byte of a new connection, and from the first byte of a head to its last."""
BODY_SECONDS = 30
"""From the end of the head to that of the body: 64 KiB at 2 KiB/s."""
LINGER_SECONDS = 2
"""For how long what a client still sends is read and dropped after our last answer. Closed with unread bytes, the
connection would be reset, and the answer lost (RFC 9112, 9.6)."""

_MOST_COUNTED = 64 * 1024  # of a body: uvicorn keeps no more of it, and what is longer is read away

MALFORMED = (400, "malformed-request", "This is no HTTP/1.1 request.")
HEAD_TOO_LARGE = (
    431,
    "headers-too-large",
    f"The head is larger than {MAX_HEAD} bytes or has over {MAX_HEADERS} lines.",
)
FRAMING_TOO_LARGE = (431, "headers-too-large", f"The chunks have more than {MAX_FRAMING} bytes that are no body.")
NO_TUNNEL = (501, "not-implemented", "There is no CONNECT here: this is not a proxy.")
TOO_SLOW = (408, "timeout", "The rest of the request did not arrive in time. Nothing was done.")
NO_ROOM = (503, "unavailable", "Too many connections. Nothing was done for this one.")

Refusal = tuple[int, str, str]


class _State(enum.Enum):
    FRESH = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    WORKING = enum.auto()
    IDLE = enum.auto()
    ENDED = enum.auto()


# How long it may wait for its client. An idle one is closed by uvicorn: http_server.IDLE_SECONDS.
_SECONDS = {
    _State.FRESH: HEAD_SECONDS,
    _State.HEAD: HEAD_SECONDS,
    _State.BODY: BODY_SECONDS,
    _State.IDLE: math.inf,
    _State.ENDED: LINGER_SECONDS,
}


class HttpProtocol(HttpToolsProtocol):
    """One connection. Requests are not pipelined: with the answer to the first the connection ends, and what was sent
    behind it is no request. RFC 9112, 9.3.2, lets clients pipeline and tells them to be ready for that; no common
    client does. Llhttp cannot stop behind a request: otherwise one read of 256 kB would become 10,000 of them."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.table = connections
        self.address = ""
        self.deadline = math.inf
        self.held = 0
        self._state: _State | None = None
        self._reading: _State | None = None  # HEAD or BODY, while the parser is within one
        self._refusal = MALFORMED
        self._ended = False  # no byte from now on is a request
        self._head = 0
        self._body = 0
        self._raw = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.address = self.client[0] if self.client else ""
        if self.table.admit(self):
            self._enter(_State.FRESH)
        else:
            self._write(NO_ROOM)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended = True
        self.table.leave(self)

    @property
    def unread(self) -> int:
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.table.stop_reading(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.table.read_on(self)

    def abort(self) -> None:
        self.transport.abort()

    def give_up(self, timeout: bool) -> None:
        if self._ended or self.unread:
            self.abort()
            return
        if self._reading is not None:
            self.refuse(TOO_SLOW if timeout else NO_ROOM)
        self._ended = True
        self.transport.close()

    # What arrives

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        self._raw = len(data) if self._reading is None else self._raw + len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.refuse(self._refusal)
            return
        framing = max(0, self._raw - self._body)
        if self._reading is not None and framing > (MAX_HEAD if self._reading is _State.HEAD else MAX_FRAMING):
            self.refuse(HEAD_TOO_LARGE if self._reading is _State.HEAD else FRAMING_TOO_LARGE)
            return
        self._settle()
        if self._reading is not None:
            self.table.hold(self, framing + min(self._body, _MOST_COUNTED))

    def _feed(self, data: bytes) -> None:
        """Alone, llhttp stops behind a head that offers to change the protocol, as Java's client and ``curl --http2``
        do, and takes what follows, the body, for the next request. We decline the offer (RFC 9110, 7.8), so the same
        head is parsed again without it, and then the body as what it is."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            version = self.parser.get_http_version().encode()
            lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
            lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")
            self.parser.feed_data(data[offer.args[0] :])

    def on_message_begin(self) -> None:
        if self._unanswered():
            raise ValueError("a request before the answer to the one before it")
        super().on_message_begin()
        self._reading = _State.HEAD
        self._head = self._body = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is _State.BODY:
            return  # a trailer. Uvicorn alone would add it to the headers of the request, which is on its way already
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= MAX_HEADERS:
            self._count(MAX_HEAD)
        super().on_header(name, value)

    def _count(self, length: int) -> None:
        self._head += length
        if self._head > MAX_HEAD:
            self._refusal = HEAD_TOO_LARGE
            raise ValueError(HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            self._refusal = NO_TUNNEL
            raise ValueError(NO_TUNNEL)
        if self.parser.should_upgrade():
            return  # the same head comes again, by _feed
        if not self.url.startswith(b"/"):
            self._to_origin_form()
        self._raw = 0
        self._reading = _State.BODY
        super().on_headers_complete()

    def _to_origin_form(self) -> None:
        """``http://host/path`` is what a client sends to a proxy, and every server has to take (RFC 9112, 3.2.2): its
        host counts, and not that of the header."""
        url = httptools.parse_url(self.url)
        if url.schema not in {b"http", b"https"} or not url.host or url.userinfo:
            raise ValueError(MALFORMED)
        host = b"[" + url.host + b"]" if b":" in url.host else url.host
        if url.port:
            host += b":%d" % url.port
        self.headers[:] = [(b"host", host), *(h for h in self.headers if h[0] != b"host")]
        self.url = (url.path or b"/") + (b"?" + url.query if url.query else b"")

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._reading = None
        super().on_message_complete()

    # What goes out

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ended:
            self._end()
        else:
            self._settle()

    def send_400_response(self, msg: str) -> None:
        """Never uvicorn's own, which writes into the midst of another answer."""
        self.refuse(MALFORMED)

    def refuse(self, refusal: Refusal) -> None:
        """The connection ends. A complete request is still answered, and nothing behind it; an incomplete one is
        refused, unless its answer has begun."""
        self._ended = True
        cycle = self.cycle
        if self._unanswered():
            if self._reading is not _State.BODY or cycle.response_started:
                self.table.work(self)
                return  # ends with that answer
            cycle.disconnected = True
            cycle.message_event.set()
            self._write(refusal)
        elif self._reading is not _State.BODY:  # else it was answered
            self._write(refusal)
        self._end()

    def _write(self, refusal: Refusal) -> None:
        status, slug, detail = refusal
        retry = {"Retry-After": "1"} if status == 503 else {}
        answer = problem(status, slug, detail, headers={"Connection": "close", **retry})
        headers = self.server_state.default_headers + answer.raw_headers
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + bytes(answer.body))

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._enter(_State.ENDED)

    # What it is about

    def _unanswered(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _settle(self) -> None:
        """Tell the table when the state has changed. A byte more of the same request gives no more time."""
        if self._ended:
            return
        if self._reading is not None:
            state = self._reading
        elif self._unanswered():
            state = _State.WORKING
        else:
            state = _State.FRESH if self.cycle is None else _State.IDLE
        if state is not self._state:
            self._enter(state)

    def _enter(self, state: _State) -> None:
        self._state = state
        if state is _State.WORKING:
            self.table.work(self)
        else:
            self.table.wait(self, _SECONDS[state])
