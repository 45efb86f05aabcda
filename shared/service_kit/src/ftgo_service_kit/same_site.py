"""Refuses writes that a browser sends on behalf of another site: a page must not order in its visitor's name.

A browser asks before it sends JSON to another site (CORS), and nobody here permits it. But it does not ask before a
plain form or a POST without a body, such as a cancellation. It marks them, though, in a way that no page can change.
"""

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ftgo_service_kit.header_fields import field
from ftgo_service_kit.problems import problem

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


def of_another_site(scope: Scope) -> bool:
    """By Sec-Fetch-Site; for browsers that send none (an address without TLS that is not the own machine), by whether
    Origin names the host that was asked. Other clients send neither."""
    site = field(scope, b"sec-fetch-site")
    if site is not None:
        return site not in _OWN
    origin = field(scope, b"origin")
    return origin is not None and urlsplit(origin).netloc.lower() != (field(scope, b"host") or "").lower()


class RefuseOtherSites:
    """Pure ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _READS and of_another_site(scope):
            detail = "A page of another site sent this request. Nothing was done: only pages of this host may write."
            await problem(403, "other-site", detail)(scope, receive, send)
            return
        await self.app(scope, receive, send)
