"""What may arrive at a socket: each bound is kept, each deadline, and no byte of a body becomes a request."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from ftgo_local.ports import free_port
from ftgo_messaging.testing.eventually import eventually
from ftgo_service_kit import connections, http_protocol
from ftgo_service_kit.app import create_app
from ftgo_service_kit.body_limit import MAX_BODY
from ftgo_service_kit.http_protocol import MAX_HEAD, MAX_HEADERS
from ftgo_service_kit.service import Service
from ftgo_service_kit.settings import ServiceSettings

BODY = b'{"name": "T"}'
HIDDEN = b"POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
State = http_protocol._State


class Site:
    """A service that only serves HTTP, in this process. ``asked``: the bodies that reached its routes."""

    def __init__(self, **settings: Any) -> None:
        self.port = free_port()
        nowhere = {"database_url": "postgresql://x@127.0.0.1:1/x", "FTGO_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
        self.service = Service("site", ServiceSettings(port=self.port, **nowhere, **settings))
        self.asked: list[bytes] = []
        self.go_on = asyncio.Event()
        app = create_app("Site", "For tests.")
        router = APIRouter()

        @router.post("/things", status_code=201)
        async def things(request: Request, wait: bool = False) -> str:
            self.asked.append(await request.body())
            if wait:
                await self.go_on.wait()
            return request.url.hostname or ""

        @router.get("/large")
        async def large() -> str:
            return "x" * 10_000_000

        @router.get("/stream")
        async def stream() -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                while True:
                    await asyncio.sleep(0)
                    yield b"x" * 10_000

            return StreamingResponse(parts())

        app.include_router(router)
        self.service.attach(app)
        self.server = self.service._http_server()

    @property
    def http(self) -> dict[str, Any]:
        return self.service.connections.describe()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, *parts: bytes) -> bytes:
        """All that is answered until the connection ends."""
        reader, writer = await self.connect()
        try:
            for part in parts:
                writer.write(part)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(0.05)  # so that it arrives in a packet of its own
            return await read(reader)
        finally:
            writer.transport.abort()

    async def order(self) -> None:
        """A quick client is served."""
        answer = await asyncio.wait_for(self.send(post(close=True)), 2)
        assert answer.startswith(b"HTTP/1.1 201"), answer


async def read(reader: asyncio.StreamReader) -> bytes:
    """Until the end of the connection."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.wait_for(reader.read(65536), 20):
            said += part
    return said


async def read_one(reader: asyncio.StreamReader) -> bytes:
    """One answer of a connection that goes on."""
    head = b"HTTP/1.1 100"
    while head.startswith(b"HTTP/1.1 100"):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return head + await reader.readexactly(length)


def post(*lines: bytes, body: bytes = BODY, close: bool = False, target: bytes = b"/things") -> bytes:
    length = b"Content-Length: %d" % len(body)
    given = [b"Host: localhost", length, *lines, *([b"Connection: close"] if close else [])]
    return b"POST " + target + b" HTTP/1.1\r\n" + b"\r\n".join(given) + b"\r\n\r\n" + body


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def problem(answer: bytes) -> tuple[int, str]:
    """Status and slug of an answer that is a problem, and ends the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    return int(head[9:12]), json.loads(body)["type"].removeprefix("urn:ftgo:")


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., Any]]:
    running: list[tuple[Site, asyncio.Task[None]]] = []

    async def build(**settings: Any) -> Site:
        site = Site(**settings)
        running.append((site, asyncio.create_task(site.server.run_until_told())))

        async def started() -> None:
            assert site.server.started

        await eventually(started)
        return site

    yield build
    for site, serving in running:
        site.go_on.set()
        site.server.should_exit = site.server.force_exit = True
        await serving
        await site.service.engine.dispose()


@pytest.fixture
async def site(build: Callable[..., Any]) -> Site:
    return await build()


# ---------------------------------------------------------------- no byte of a body becomes a request

OFFERS = {
    "curl": [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
    "java": [b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAEAAEAA", b"Upgrade: h2c"],
    "websocket": [b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: eA=="],
    "unknown": [b"connection: upgrade", b"upgrade: anything/1, else"],
    "expects": [b"Connection: Upgrade", b"Upgrade: h2c", b"Expect: 100-continue"],
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("packets", ["one", "two", "bytes"])
async def test_an_offer_to_change_the_protocol_is_declined_and_the_body_read(site: Site, offer, packets) -> None:
    request = post(*offer, body=HIDDEN)
    split = len(request) - len(HIDDEN)
    reader, writer = await site.connect()
    for part in {"one": [request], "two": [request[:split], request[split:]]}.get(packets, map(_byte, request)):
        writer.write(part)
        await asyncio.sleep(0.05 if packets == "two" else 0)
    assert statuses(await read_one(reader)) == [201]
    writer.write(post(close=True))
    assert statuses(await read(reader)) == [201]
    assert site.asked == [HIDDEN, BODY]
    writer.transport.abort()


def _byte(value: int) -> bytes:
    return bytes([value])


async def test_after_a_declined_offer_chunks_are_read_as_well(site: Site) -> None:
    offering = post(*OFFERS["curl"])
    chunked = offering.replace(b"Content-Length: 13", b"Transfer-Encoding: chunked").replace(BODY, b"d\r\n" + BODY)
    reader, writer = await site.connect()
    for request in (offering, chunked + b"\r\n0\r\n\r\n", post(body=b"third")):
        writer.write(request)
        assert statuses(await read_one(reader)) == [201]
    assert site.asked == [BODY, BODY, b"third"]
    writer.transport.abort()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT 127.0.0.1:5432 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 5\r\n\r\n", 400),
        (b"POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\n", 400),
        (b"POST /things HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        (b"POST /things HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x, chunked\r\nX : y\r\n\r\n", 400),
        (b"POST /things HTTP/1.1\nHost: localhost\nContent-Length: 5\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET ftp://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://me@localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_for_us_is_refused_with_all_behind_it(site: Site, head, status) -> None:
    answers = await site.send(head, HIDDEN)
    assert statuses(answers) == [status]
    assert problem(answers)[0] == status
    assert site.asked == []


async def test_a_trailer_is_no_header(site: Site) -> None:
    chunked = post(b"Connection: close").partition(b"\r\n\r\n")[0] + b"\r\n\r\n1\r\nx\r\n0\r\n"
    chunked = chunked.replace(b"Content-Length: 13", b"Transfer-Encoding: chunked")
    assert statuses(await site.send(chunked + b"Host: evil.example\r\n\r\n")) == [201]
    endless = [b"Trailer: " + b"x" * 100_000] * 20
    answers = await site.send(chunked, *endless)
    assert problem(answers) == (431, "headers-too-large")


async def test_expect_100_is_answered_and_a_too_large_body_not_asked_for(site: Site) -> None:
    request = post(b"Expect: 100-continue", close=True)
    assert statuses(await site.send(request[: -len(BODY)], BODY)) == [100, 201]
    large = b"POST /things HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert problem(await site.send(large % (MAX_BODY + 1))) == (413, "too-large")


async def test_http_1_0_is_served(site: Site) -> None:
    answer = await site.send(b"POST /things HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
    assert statuses(answer) == [201]
    assert site.asked == [b"{}"]


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * MAX_HEAD,
        b"\r\n".join(b"X-%d: x" % n for n in range(MAX_HEADERS)),
        b"x" * MAX_HEAD + b": x",
    ],
    ids=["a long value", "many lines", "a long name"],
)
@pytest.mark.parametrize("ends", [True, False])
async def test_a_large_head_is_refused(site: Site, head, ends) -> None:
    if not ends:
        head += b"x" * MAX_HEAD  # the limit counts, not the end
    answer = await site.send(b"POST /things HTTP/1.1\r\nHost: localhost\r\n" + head, b"\r\n\r\n" if ends else b"x")
    assert problem(answer) == (431, "headers-too-large")
    assert site.asked == []


async def test_a_long_target_is_refused(site: Site) -> None:
    assert problem(await site.send(b"GET /" + b"x" * MAX_HEAD, b"x")) == (431, "headers-too-large")


async def test_a_head_of_just_the_limit_is_read(site: Site) -> None:
    lines = [b"X-%d: " % n + b"x" * 300 for n in range(MAX_HEADERS - 3)]
    assert statuses(await site.send(post(*lines, close=True))) == [201]


async def test_a_megabyte_of_header_is_not_looked_at(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 30_000_000)
    await asyncio.wait_for(site.order(), 2)
    assert problem(await read(reader)) == (431, "headers-too-large")
    writer.transport.abort()


# ---------------------------------------------------------------- one after the other


async def test_what_comes_before_the_answer_is_no_request(site: Site) -> None:
    answers = await site.send(post() * 10_000)
    assert statuses(answers) == [201]
    assert site.asked == [BODY]
    await site.order()


async def test_rubbish_behind_a_request_does_not_hide_its_answer(site: Site) -> None:
    answers = await site.send(post() + b"\x00\x01 rubbish\r\n\r\n")
    assert statuses(answers) == [201]
    assert site.asked == [BODY]


async def test_a_connection_serves_one_request_after_the_other(site: Site) -> None:
    reader, writer = await site.connect()
    for number in range(20):
        writer.write(post(body=b"%d" % number))
        assert statuses(await read_one(reader)) == [201]
    assert site.asked == [b"%d" % number for number in range(20)]
    writer.transport.abort()


# ---------------------------------------------------------------- deadlines


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for state in (State.FRESH, State.HEAD, State.BODY):
        monkeypatch.setitem(http_protocol._SECONDS, state, 0.3)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)


@pytest.mark.parametrize("sent", [b"POST /thi", post()[:-1], post(*OFFERS["curl"])[:-1]], ids=["head", "body", "offer"])
async def test_a_late_rest_is_answered_by_408(site: Site, hasty: None, sent) -> None:
    reader, writer = await site.connect()
    writer.write(sent)
    assert problem(await read(reader)) == (408, "timeout")
    assert site.asked == []
    assert site.http["closed"] == {"late": 1}
    writer.transport.abort()


async def test_a_byte_now_and_then_is_no_progress(site: Site, hasty: None) -> None:
    reader, writer = await site.connect()
    writer.write(b"POST /things HTTP/1.1\r\nHost: localhost\r\nX: ")

    async def closed() -> None:
        writer.write(b"x")
        assert reader.at_eof() or site.http["closed"]

    await eventually(closed, every=0.1)
    writer.transport.abort()


async def test_who_never_sends_a_byte_is_closed(site: Site, hasty: None) -> None:
    reader, writer = await site.connect()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.transport.abort()


@pytest.mark.parametrize("path", [b"/large", b"/stream"])
async def test_who_does_not_read_is_cut_off(site: Site, hasty: None, path) -> None:
    _, writer = await site.connect()
    writer.transport.pause_reading()
    writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def cut_off() -> None:
        assert site.http["closed"] == {"unread": 1}
        assert site.http["connections"] == 0

    await eventually(cut_off)
    await site.order()
    writer.transport.abort()


async def test_who_waits_for_a_slow_answer_is_not_cut_off(site: Site, hasty: None) -> None:
    reader, writer = await site.connect()
    writer.write(post(target=b"/things?wait=true", close=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 2.5)  # more than two sweeps
    site.go_on.set()
    assert statuses(await read(reader)) == [201]
    assert site.http["closed"] == {}
    writer.transport.abort()


# ---------------------------------------------------------------- who is closed when there are too many


@pytest.mark.parametrize("sent", [b"", b"POST /", post()[:-1]], ids=["nothing", "head", "body"])
@pytest.mark.parametrize("limit", ["FTGO_CONNECTIONS", "FTGO_CONNECTIONS_PER_ADDRESS"])
async def test_slow_clients_crowd_out_each_other(build: Callable[..., Any], sent, limit) -> None:
    site = await build(FTGO_REQUEST_LIMIT=5, **{limit: 10})
    slow = [await site.connect() for _ in range(30)]
    for _, writer in slow:
        writer.write(sent)
    for _ in range(5):
        await site.order()
    assert site.http["connections"] <= 10
    assert site.http["closed"]["room"] >= 20
    assert not site.http["refused"]
    for _, writer in slow:
        writer.transport.abort()


async def test_who_is_served_is_not_closed_for_another(build: Callable[..., Any]) -> None:
    site = await build(FTGO_REQUEST_LIMIT=5, FTGO_CONNECTIONS=6)
    site.service.connections.limit = 5
    working = [await site.connect() for _ in range(5)]
    for _, writer in working:
        writer.write(post(target=b"/things?wait=true", close=True))

    async def all_work() -> None:
        assert len(site.asked) == 5

    await eventually(all_work)
    reader, writer = await site.connect()
    assert problem(await read(reader)) == (503, "unavailable")
    assert (site.http["refused"], site.http["refusing"]) == (1, True)
    writer.transport.abort()
    site.go_on.set()
    for reader, writer in working:
        assert statuses(await read(reader)) == [201]
        writer.transport.abort()


async def test_incomplete_requests_have_a_bound_in_bytes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_HELD", 500_000)
    slow = [await site.connect() for _ in range(30)]
    for _, writer in slow:
        writer.write(post(body=b"x" * 60_000)[:-1])

    async def bounded() -> None:
        assert site.http["closed"].get("bytes", 0) >= 21

    await eventually(bounded)
    await site.order()
    for _, writer in slow:
        writer.transport.abort()


async def test_unread_answers_have_a_bound_in_bytes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_UNREAD", 30_000_000)
    deaf = [await site.connect() for _ in range(6)]
    for _, writer in deaf:
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def bounded() -> None:
        assert site.http["closed"].get("unread", 0) >= 3

    await eventually(bounded)
    await site.order()
    for _, writer in deaf:
        writer.transport.abort()


async def test_a_slow_body_takes_no_place_among_the_requests(build: Callable[..., Any]) -> None:
    site = await build(FTGO_REQUEST_LIMIT=2)
    slow = [await site.connect() for _ in range(20)]
    for _, writer in slow:
        writer.write(post()[:-1])
    await site.order()
    for _, writer in slow:
        writer.transport.abort()


# ---------------------------------------------------------------- names

WRONG = [b"evil.example", b"localhost.evil.example", b"evil.example:80", b"127.0.0.1.evil.example", b"site.example"]
FINE = [b"localhost", b"LOCALHOST:1", b"127.0.0.1", b"10.1.2.3:8082", b"[::1]:8082", b"site", b"site-http.ftgo"]
FINE += [b"site-http.ftgo.svc.cluster.local", b"localhost.", b"api.example.org", b"shop.test:443"]


@pytest.mark.parametrize("host", FINE)
async def test_a_name_of_ours_is_served(build: Callable[..., Any], host) -> None:
    site = await build(FTGO_ALLOWED_HOSTS="*.example.org shop.test")
    assert statuses(await site.send(post(close=True).replace(b"Host: localhost", b"Host: " + host))) == [201]


@pytest.mark.parametrize("host", WRONG)
async def test_another_name_is_not_served(site: Site, host) -> None:
    answer = await site.send(post(close=True).replace(b"Host: localhost", b"Host: " + host))
    assert problem(answer) == (421, "wrong-host")
    assert b"FTGO_ALLOWED_HOSTS" in answer
    assert site.asked == []


@pytest.mark.parametrize("lines", [b"", b"Host: localhost\r\nHost: localhost\r\n", b"Host:\r\n", b"Host: a b\r\n"])
async def test_a_request_names_one_host(site: Site, lines) -> None:
    answer = await site.send(b"GET /livez HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
    assert problem(answer) == (400, "malformed-request")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://localhost/things", 201),
        (b"http://127.0.0.1:80/things?wait=false", 201),
        (b"http://evil.example/", 421),
    ],
)
async def test_the_host_of_a_whole_url_counts(site: Site, target, expected) -> None:
    host = b"evil.example" if expected == 201 else b"localhost"
    answer = await site.send(post(target=target, close=True).replace(b"Host: localhost", b"Host: " + host))
    assert statuses(answer) == [expected]


# ---------------------------------------------------------------- the end


async def test_an_idle_connection_is_kept_for_longer_than_by_its_client(site: Site) -> None:
    """Whoever closes first may do so while a request is on its way: that must not be the service. Httpx drops a
    connection after 5 s, which uvicorn would close at that moment."""
    assert site.server.config.timeout_keep_alive > 60 > (httpx.Limits().keepalive_expiry or 0)


async def test_a_connection_that_is_kept_ends_with_an_answer_that_says_so(site: Site) -> None:
    """When a service stops. A client that was not told may send its next request just when the connection is closed,
    and cannot know whether it was carried out."""
    reader, writer = await site.connect()
    writer.write(post())
    assert b"connection: close" not in (await read_one(reader)).lower()
    stopping = asyncio.create_task(site.server.stop_listening())
    await asyncio.sleep(0)
    writer.write(post())
    last = await read_one(reader)
    assert statuses(last) == [201]
    assert b"connection: close" in last.lower()
    assert await read(reader) == b""
    writer.close()
    await stopping
