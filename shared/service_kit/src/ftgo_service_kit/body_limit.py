"""Reads the body of a request before anything is done for it, and refuses those over 64 KiB, announced or not.

Afterwards a slow client holds nothing but its connection: no place among the requests in progress, no time of others.
"""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.problems import problem

MAX_BODY = 64 * 1024
MAX_BODIES = 16 * 1024 * 1024
"""Bytes of the bodies of all requests in progress, which are kept until they are answered."""
_READ_AWAY = 10 * 1024 * 1024
_PATIENCE_SECONDS = 5


class LimitBody:
    """Pure ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY:
            if b"expect" not in headers:  # who expects 100 has not begun to send
                await _read_away(receive)
            await _too_large(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                if more:
                    await _read_away(receive)
                await _too_large(scope, receive, send)
                return
        if self._bytes + len(body) > MAX_BODIES:
            detail = "Too many large requests are in progress. Nothing was done for this one."
            await problem(503, "unavailable", detail, headers={"Retry-After": "1"})(scope, receive, send)
            return
        self._bytes += len(body)
        try:
            await self.app(scope, _first(bytes(body), receive), send)
        finally:
            self._bytes -= len(body)


def _first(body: bytes, receive: Receive) -> Receive:
    """The body, and then whatever comes: that the client has gone."""
    given = False

    async def body_first() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return body_first


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    # There may be more of the body than was read away, so the connection cannot serve another request.
    detail = f"The body is larger than {MAX_BODY} bytes."
    await problem(413, "too-large", detail, headers={"Connection": "close"})(scope, receive, send)


async def _read_away(receive: Receive) -> None:
    """Take in what the client is still sending, up to a point: answered and closed with unread bytes in the socket,
    the connection would be reset, and the client would see that instead of the 413."""
    received = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while received <= _READ_AWAY:
                message = await receive()
                received += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
