"""Takes the trace of a request from its headers, and tells its id with every answer. Pure ASGI."""

from ftgo_messaging.messages.message import TRACEPARENT, TRACESTATE
from ftgo_messaging.messages.tracing import traced
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.header_fields import field

_TRACE = [(name, name.encode()) for name in (TRACEPARENT, TRACESTATE)]
TRACE_ID = b"x-trace-id"
"""The header of answers: 32 hexadecimal digits. W3C has names for headers of requests only."""


class Trace:
    """To be outermost: errors and refusals have the header as well."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = {name: value for name, line in _TRACE if (value := field(scope, line)) is not None}
        with traced(given) as trace_id:
            scope["trace_id"] = trace_id

            async def named(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), (TRACE_ID, trace_id.encode())]
                await send(message)

            await self.app(scope, receive, named)
