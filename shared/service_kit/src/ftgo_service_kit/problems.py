"""Errors as application/problem+json (RFC 9457): a stable type slug, a sentence, and the field where there is one."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from ftgo_messaging import DomainError
from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.runtime.errors import Overloaded, is_transient
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.field_errors import field_error

log = structlog.get_logger("ftgo.http")

_MOST_ERRORS = 20
_READS = frozenset({"GET", "HEAD"})
_IN_WORDS = {
    404: "There is nothing at this path. The page /docs shows what there is.",
    405: "This path does not take this method. The header Allow names those that it takes.",
}
"""For what Starlette only gives the name of the status."""


class NotFound(DomainError):
    """There is no such thing, or not yet."""

    slug = "not-found"
    status = 404


class Unprocessable(DomainError):
    """Well-formed, but known to be wrong."""

    slug = "unprocessable"
    status = 422


def problem(
    status: int,
    slug: str,
    detail: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = {"type": f"urn:ftgo:{slug}", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    # In ASCII: a client's field name may hold half a surrogate pair, which UTF-8 cannot carry.
    text = json.dumps({**body, **(extra or {})}, default=str)
    return Response(text, status, headers=dict(headers or {}), media_type="application/problem+json")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses=``: declares the problems that it can answer with."""
    return {
        s: {
            "description": HTTPStatus(s).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for s in statuses
    }


def _domain(_: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)  # noqa: S101
    return problem(error.status, error.slug, error.detail, error.extra)


def _validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [field_error(e) for e in error.errors()[:_MOST_ERRORS]]
    first = errors[0]
    return problem(422, "validation", f"{first['field']}: {first['message']}", {"errors": errors})


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
    phrase = HTTPStatus(error.status_code).phrase
    detail = _IN_WORDS.get(error.status_code, phrase) if error.detail == phrase else str(error.detail)
    slug = getattr(error, "slug", phrase.lower().replace(" ", "-"))
    return problem(error.status_code, slug, detail, headers=headers)


def _methods_at(request: Request) -> list[str]:
    """What the path takes. Starlette names the methods of one route only, and a path may have several."""
    routes = request.app.router.routes

    def taken(method: str) -> bool:
        return any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)

    methods = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if taken(method)]
    return ["HEAD", *methods] if "GET" in methods else methods


def _unexpected(error: Exception, scope: Scope) -> Response:
    trace = scope.get("trace_id")
    if isinstance(error, Overloaded):
        log.warning("http.overloaded", error=str(error), trace=trace)
        detail = f"The service is overloaded: {error}. Nothing was written. {_AGAIN}"
        return problem(503, "unavailable", detail, headers={"Retry-After": str(error.retry_after)})
    if is_transient(error):
        log.warning("http.unavailable", error=f"{type(error).__name__}: {error}", trace=trace)
        detail = f"The service cannot reach its database at the moment. {_was_written(scope['method'])} {_AGAIN}"
        return problem(503, "unavailable", detail, headers={"Retry-After": "1"})
    log.error("http.bug", exc_info=error, trace=trace)
    detail = (
        "The service has a fault. Sending the request again will not help; the log tells more by the id in X-Trace-Id."
    )
    return problem(500, "internal", detail)


_AGAIN = "Send the request again after the seconds in Retry-After."


def _was_written(method: str) -> str:
    if method in _READS:
        return "Nothing was changed."
    return (
        "Whether the change was made is not known: look first, unless the request has an Idempotency-Key or an id that"
        " you chose."
    )


class AnswerUnexpected:
    """Answers every other error: 503 when trying again can help, else 500. Pure ASGI.

    Not an exception handler for ``Exception``: Starlette raises the error once more behind such a one, and the server
    would log a stack trace for each request while the database is away."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            with contained():
                await self.app(scope, receive, noted)
        except Exception as error:
            if started or scope["type"] != "http":
                raise  # too late for an answer: the server closes the connection
            await _unexpected(error, scope)(scope, receive, send)


def add_problem_handlers(app: FastAPI) -> None:
    """From now on every error of the application is answered by a problem."""
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(AnswerUnexpected)
