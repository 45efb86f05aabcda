"""Refuses requests when too many are in progress already: an answer now is better than a late one for all.

Not Uvicorn's ``limit_concurrency``: that refuses the probes of the platform too, which would then restart a process for
being busy, and answers without a Retry-After.
"""

from prometheus_client import Counter, Gauge
from starlette.types import ASGIApp, Receive, Scope, Send

from ftgo_service_kit.problems import problem

IN_PROGRESS = Gauge("ftgo_http_requests_in_progress", "Requests that are not answered yet")
REFUSED = Counter("ftgo_http_requests_refused_total", "Requests refused because too many were in progress")

_ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})


class LimitRequests:
    """Pure ASGI middleware. ``limit`` counts event streams as well, for as long as they are open."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit
        self._in_progress = 0
        IN_PROGRESS.set_function(lambda: self._in_progress)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self.app(scope, receive, send)
            return
        if self._in_progress >= self._limit:
            REFUSED.inc()
            detail = (
                "Too many requests are in progress. This one was not begun: send it again after Retry-After seconds."
            )
            await problem(503, "unavailable", detail, headers={"Retry-After": "1"})(scope, receive, send)
            return
        self._in_progress += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._in_progress -= 1
