"""How a client learns that an order is settled: a GET that waits, or a stream of events."""

import asyncio
import re
import time
from collections.abc import AsyncIterator

import msgspec
from fastapi import Request
from fastapi.responses import StreamingResponse
from ftgo_service_kit.header_fields import elements
from starlette.types import Receive, Scope, Send

from ftgo_order.adapters.order_changes import LOOK_AGAIN, OrderChanges, Watch
from ftgo_order.adapters.queries import OrderChange, find
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.domain.order import Order

LONGEST_WAIT = 30
_STREAM_SECONDS = 300
_KEEP_ALIVE = 15
_WAIT = re.compile(r'wait\s*=\s*("?)0*([0-9]+)\1\s*(;.*)?', re.IGNORECASE | re.DOTALL)


def preferred_wait(prefer: str | None) -> int:
    """The seconds of ``Prefer: wait=N`` (RFC 7240), at most 30; 0 without it. What is not understood is ignored, as
    the RFC demands."""
    for preference in elements(prefer or ""):
        if match := _WAIT.fullmatch(preference):
            return min(int(match[2][:3]), LONGEST_WAIT)
    return 0


async def settled(order_id: str, seconds: float, request: Request) -> Order | None:
    """The order as soon as it is settled, or as it is after ``seconds``. No connection is held while waiting. Raises
    Overloaded when too many wait already."""
    state = request.app.state
    if seconds <= 0:
        return await find(ORDERS, order_id, state.engine)
    changes: OrderChanges = state.order_changes
    deadline = time.monotonic() + seconds
    with changes.watch(order_id) as watch:
        while True:
            order = await changes.orders.ask(order_id)
            left = deadline - time.monotonic()
            if order is None or order.state.settled or left <= 0 or state.service.stopping:
                return order
            await watch.wait(left)


class EventStream(StreamingResponse):
    """The changes after ``version`` as server-sent events, ids being order versions. Ends after a settled state. It
    also ends after five minutes and when the service stops: a client resumes with the last id that it saw. One that
    finds the database away goes on when it is back. Answers by a 503 when too many wait already."""

    def __init__(self, order_id: str, version: int, request: Request) -> None:
        self._state = request.app.state
        self._order_id = order_id
        self._watch = Watch()
        super().__init__(self._events(version), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._state.order_changes.watch(self._order_id) as self._watch:
            await super().__call__(scope, receive, send)

    async def _events(self, version: int) -> AsyncIterator[str]:
        end = time.monotonic() + _STREAM_SECONDS
        spoken = time.monotonic()
        while time.monotonic() < end and not self._state.service.stopping:
            news = await self._news(version)
            for change in news or ():
                yield _event(change)
                version, spoken = change.version, time.monotonic()
            if news and news[-1].state.settled:
                return
            if time.monotonic() - spoken >= _KEEP_ALIVE:
                # Proxies cut a connection that says nothing.
                yield ": still here\n\n"
                spoken = time.monotonic()
            if news is None:
                await asyncio.sleep(LOOK_AGAIN)
            else:
                await self._watch.wait(_KEEP_ALIVE)

    async def _news(self, version: int) -> list[OrderChange] | None:
        """None while the database is away. The answer has begun: an error could only become a trace in the log, from
        each of a thousand streams."""
        changes: OrderChanges = self._state.order_changes
        try:
            return await changes.history.ask((self._order_id, version)) or []
        except Exception:
            return None


def _event(change: OrderChange) -> str:
    body: dict[str, object] = {
        "orderId": change.order_id,
        "state": change.state.value,
        "version": change.version,
        "at": change.at.isoformat().replace("+00:00", "Z"),
    }
    for name, refusal in (("rejection", change.rejection), ("changeRefusal", change.change_refusal)):
        if refusal is not None:
            body[name] = {"reason": refusal.reason, "service": refusal.service}
    return f"id: {change.version}\nevent: order\ndata: {msgspec.json.encode(body).decode()}\n\n"
