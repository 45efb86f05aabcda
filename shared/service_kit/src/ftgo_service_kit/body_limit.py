"""Refuses request bodies over 64 KiB, whether or not Content-Length announces them."""

import asyncio
import contextlib

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.problems import problem

MAX_BODY = 64 * 1024
_READ_AWAY = 10 * 1024 * 1024
_PATIENCE_SECONDS = 5


class BodyTooLarge(HTTPException):
    """An HTTPException, because FastAPI turns any other error while reading a body into a 400."""

    slug = "too-large"

    def __init__(self) -> None:
        # There may be more of the body than was read away, so the connection cannot serve another request.
        super().__init__(413, f"The body is larger than {MAX_BODY} bytes.", {"Connection": "close"})


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


class LimitBody:
    """Pure ASGI middleware: nothing is buffered, and an allowed body is not read before the application asks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > MAX_BODY:
            refusal = BodyTooLarge()
            await _read_away(receive)
            await problem(413, refusal.slug, refusal.detail, headers=refusal.headers)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                await _read_away(receive)
                raise BodyTooLarge
            return message

        await self.app(scope, limited, send)
