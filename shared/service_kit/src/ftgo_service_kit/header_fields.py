"""Header fields that are lists, and those that are not (RFC 9110, sections 5.3 and 5.6.1)."""

import re
from collections import defaultdict

from starlette.types import ASGIApp, Receive, Scope, Send

from ftgo_service_kit.problems import problem

_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_LISTS = frozenset({b"prefer", b"if-none-match"})
_SINGLE = frozenset({b"authorization", b"content-encoding", b"content-type", b"idempotency-key", b"last-event-id"})


def elements(value: str) -> list[str]:
    """The elements of a list. A comma inside of a quoted text divides nothing; empty elements do not count."""
    return [element for part in _ELEMENT.findall(value) if (element := part.strip(" \t"))]


def field(scope: Scope, name: bytes) -> str | None:
    """The field's lines as one; None without any. Starlette's ``Headers`` would decode all fields for it."""
    lines = [value for given, value in scope["headers"] if given == name]
    return b", ".join(lines).decode("latin-1") if lines else None


def none_match(if_none_match: str | None, etag: str) -> bool:
    """Whether the precondition If-None-Match lets a GET of something with this entity tag be answered in full. It
    compares weakly: W/"1" is "1"."""
    tags = elements(if_none_match or "")
    return tags != ["*"] and etag not in {tag.removeprefix("W/") for tag in tags}


class OneOfEach:
    """From now on no field that the routes read has more than one line. Lines of a list are put together; several with
    the same value count as one; with different ones, which of them counts is not guessed: 400. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or len({name for name, _ in scope["headers"]}) == len(scope["headers"]):
            await self.app(scope, receive, send)
            return
        lines: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for name, value in scope["headers"]:
            lines[name].append(value)
        for name in _SINGLE & lines.keys():
            if len(set(lines[name])) > 1:
                detail = f"The header {name.decode().title()} came with different values. Send it once."
                await problem(400, "repeated-header", detail)(scope, receive, send)
                return
        once = [(name, values[0]) for name, values in lines.items() if name in _SINGLE]
        lists = [(name, b", ".join(values)) for name, values in lines.items() if name in _LISTS]
        others = [line for line in scope["headers"] if line[0] not in _SINGLE | _LISTS]
        await self.app({**scope, "headers": [*others, *lists, *once]}, receive, send)
