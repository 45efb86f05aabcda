"""Refuses request bodies over 64 KiB, whether or not Content-Length announces them."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.problems import problem

MAX_BODY = 64 * 1024


class BodyTooLarge(HTTPException):
    """An HTTPException, because FastAPI turns any other error while reading a body into a 400."""

    slug = "too-large"

    def __init__(self) -> None:
        # The rest of the body is never read, so the connection cannot serve another request.
        super().__init__(413, f"The body is larger than {MAX_BODY} bytes.", {"Connection": "close"})


class LimitBody:
    """Pure ASGI middleware: nothing is buffered, nothing is read before the application asks for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > MAX_BODY:
            refusal = BodyTooLarge()
            await problem(413, refusal.slug, refusal.detail, headers=refusal.headers)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise BodyTooLarge
            return message

        await self.app(scope, limited, send)
