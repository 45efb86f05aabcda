"""Takes the trace of a request from its headers. Pure ASGI."""

from ftgo_messaging.message import TRACEPARENT, TRACESTATE
from ftgo_messaging.tracing import traced
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send


class Trace:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with traced({name: headers[name] for name in (TRACEPARENT, TRACESTATE) if name in headers}):
            await self.app(scope, receive, send)
