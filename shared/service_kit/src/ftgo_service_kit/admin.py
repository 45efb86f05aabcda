"""The admin API: dead letters over HTTP. Off, unless FTGO_ADMIN_KEY_FILE names the public key of those who may use it.

Each operation needs a scope of its own, and each write leaves a line in the log: who, what, which, and how it ended.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query, Request
from ftgo_messaging import DomainError
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.dead_letters import UNRESOLVED
from ftgo_messaging.consumer.letter import DeadLetter, State, document
from ftgo_messaging.runtime.connection import Connection, begin, connect

from ftgo_service_kit.bearer import Bearer
from ftgo_service_kit.paging import NOT_OURS, BadCursor
from ftgo_service_kit.problems import responses

log = structlog.get_logger("ftgo.audit")

READ, WRITE = "dead-letters:read", "dead-letters:write"
_BIGGEST_ID = 2**63 - 1


def admin_router(bearer: Bearer) -> APIRouter:
    """The routes below /admin."""
    router = APIRouter(prefix="/admin/dead-letters", tags=["admin"], responses=responses(401, 403))
    reader = Depends(bearer.needs(READ))
    writer = Annotated[str, Depends(bearer.needs(WRITE))]

    @router.get("", dependencies=[reader])
    async def list_dead_letters(
        request: Request,
        state: Annotated[list[State] | None, Query()] = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
    ) -> dict[str, Any]:
        """Oldest first; without ``state`` those that wait. ``next`` is the cursor of the next page."""
        async with connect(request.app.state.engine) as connection:
            found = await dead_letters.list_letters(
                connection, after=_decode(cursor), limit=limit + 1, states=state or UNRESOLVED
            )
        page = found[:limit]
        more = len(found) > limit
        return {
            "deadLetters": [_without_body(letter) for letter in page],
            "next": _encode(page[-1].id) if more else None,
        }

    @router.get("/{letter_id}", dependencies=[reader], responses=responses(404))
    async def get_dead_letter(request: Request, letter_id: int) -> dict[str, Any]:
        """One of them, whole."""
        async with connect(request.app.state.engine) as connection:
            return document(await dead_letters.get_letter(connection, _small(letter_id)))

    @router.post("/{letter_id}/redrive", status_code=202, responses=responses(404, 409))
    async def redrive(request: Request, letter_id: int, subject: writer) -> dict[str, Any]:
        """Have it handled once more, exactly once, by the consumer that it failed in; what waits behind it follows.
        Ordered twice, it is still handled once."""
        return await _written(request, "redrive", letter_id, subject, dead_letters.order_redrive)

    @router.post("/{letter_id}/discard", responses=responses(404, 409))
    async def discard(request: Request, letter_id: int, subject: writer) -> dict[str, Any]:
        """Give it up. Its row stays; what waits behind it follows."""
        return await _written(request, "discard", letter_id, subject, dead_letters.discard)

    return router


async def _written(
    request: Request,
    action: str,
    letter_id: int,
    subject: str,
    run: Callable[[Connection, int], Awaitable[DeadLetter]],
) -> dict[str, Any]:
    outcome = "failed"
    try:
        async with begin(request.app.state.engine) as connection:
            letter = await run(connection, _small(letter_id))
        outcome = "done"
    except DomainError as refusal:
        outcome = refusal.slug
        raise
    finally:
        log.info("audit.dead_letter", action=action, letter=letter_id, subject=subject, outcome=outcome)
    return _without_body(letter)


def _without_body(letter: DeadLetter) -> dict[str, Any]:
    whole = document(letter)
    return {name: whole[name] for name in whole if name not in {"headers", "body", "bodyBase64"}}


def _small(letter_id: int) -> int:
    if not 0 <= letter_id <= _BIGGEST_ID:
        raise dead_letters.NoSuchDeadLetter(f"There is no dead letter {letter_id}.")
    return letter_id


def _encode(last: int) -> str:
    return base64.urlsafe_b64encode(str(last).encode()).decode()


def _decode(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        last = int(base64.urlsafe_b64decode(cursor.encode()).decode())
    except (binascii.Error, ValueError) as error:
        raise BadCursor(NOT_OURS) from error
    if not 0 <= last <= _BIGGEST_ID:
        raise BadCursor(NOT_OURS)
    return last
