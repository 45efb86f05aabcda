"""Errors as application/problem+json (RFC 9457): a stable type slug, a sentence, and the field where there is one."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from ftgo_messaging.contained import contained
from ftgo_messaging.errors import DomainError, is_transient
from ftgo_messaging.transactions import Overloaded
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.field_errors import field_error

log = structlog.get_logger("ftgo.http")

_MOST_ERRORS = 20


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


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    slug = getattr(error, "slug", HTTPStatus(error.status_code).phrase.lower().replace(" ", "-"))
    return problem(error.status_code, slug, str(error.detail), headers=error.headers)


def _unexpected(error: Exception) -> Response:
    if isinstance(error, Overloaded):
        log.warning("http.overloaded", error=str(error))
        detail = "Too much waits already. Nothing was written: try again after the time that Retry-After names."
        return problem(503, "unavailable", detail, headers={"Retry-After": str(error.retry_after)})
    if is_transient(error):
        log.warning("http.unavailable", error=f"{type(error).__name__}: {error}")
        detail = "A part is away just now. A write may have happened or not: ask before repeating it."
        return problem(503, "unavailable", detail, headers={"Retry-After": "1"})
    log.error("http.bug", exc_info=error)
    return problem(500, "internal", "A mistake on our side. It is in the log.")


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
            await _unexpected(error)(scope, receive, send)


def add_problem_handlers(app: FastAPI) -> None:
    """From now on every error of the application is answered by a problem."""
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(AnswerUnexpected)
