"""Errors as application/problem+json (RFC 9457): a stable type slug, a sentence, and the field where there is one."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ftgo_messaging.errors import DomainError, is_transient
from ftgo_messaging.transactions import Overloaded
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftgo_service_kit.schemas import Problem

log = structlog.get_logger("ftgo.http")

MAX_BODY = 64 * 1024


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
) -> JSONResponse:
    body = {"type": f"urn:ftgo:{slug}", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(
        {**body, **(extra or {})}, status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses=``: declares the problems that it can answer with."""
    return {
        s: {
            "model": Problem,
            "description": HTTPStatus(s).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for s in statuses
    }


def _domain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)  # noqa: S101
    return problem(error.status, error.slug, error.detail, error.extra)


def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [
        {"field": ".".join(str(p) for p in e["loc"] if p != "body") or "body", "message": str(e["msg"])}
        for e in error.errors()
    ]
    if any(e["type"] == "json_invalid" for e in error.errors()):
        return problem(400, "malformed-json", "The body is not JSON.")
    first = errors[0]
    return problem(422, "validation", f"{first['field']}: {first['message']}", {"errors": errors})


def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return problem(error.status_code, slug, str(error.detail), headers=error.headers)


def _other(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Overloaded) or is_transient(error):
        log.warning("http.unavailable", error=f"{type(error).__name__}: {error}")
        detail = "Too busy or a part is away just now. Nothing was changed by this request, or it is safe to repeat."
        return problem(503, "unavailable", detail, headers={"Retry-After": "1"})
    log.error("http.bug", exc_info=error)
    return problem(500, "internal", "A mistake on our side. It is in the log.")


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Overloaded, _other)
    app.add_exception_handler(Exception, _other)


class TooLarge(Exception):
    """The body is larger than MAX_BODY."""


class LimitBody:
    """Refuses bodies over MAX_BODY with 413, whether or not Content-Length says so. Pure ASGI: nothing is buffered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > MAX_BODY:
            await _refuse(send)
            return
        received = 0
        started = False

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, limited, noted)
        except TooLarge:
            if not started:
                await _refuse(send)


async def _refuse(send: Send) -> None:
    body = {
        "type": "urn:ftgo:too-large",
        "title": "Content Too Large",
        "status": 413,
        "detail": f"The body is larger than {MAX_BODY} bytes.",
    }
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
