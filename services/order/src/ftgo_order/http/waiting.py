"""How a client learns that an order is settled: a GET that waits, or a stream of events."""

import re
import time
from collections.abc import AsyncIterator

import msgspec
from fastapi import Request
from ftgo_service_kit.header_fields import elements

from ftgo_order.adapters.order_changes import OrderChanges
from ftgo_order.adapters.queries import OrderChange, changes_since, find
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
    """The order as soon as it is settled, or as it is after ``seconds``. No connection is held while waiting."""
    state = request.app.state
    changes: OrderChanges = state.order_changes
    deadline = time.monotonic() + seconds
    with changes.watch(order_id) as watch:
        while True:
            order = await find(ORDERS, order_id, state.engine)
            left = deadline - time.monotonic()
            if order is None or order.state.settled or left <= 0 or state.service.stopping:
                return order
            await watch.wait(left)


async def event_stream(order_id: str, version: int, request: Request) -> AsyncIterator[str]:
    """The changes after ``version`` as server-sent events, ids being order versions. Ends after a settled state. It
    also ends after five minutes and when the service stops: a client resumes with the last id that it saw."""
    state = request.app.state
    changes: OrderChanges = state.order_changes
    end = time.monotonic() + _STREAM_SECONDS
    spoken = time.monotonic()
    with changes.watch(order_id) as watch:
        while time.monotonic() < end and not state.service.stopping:
            news = await changes_since(order_id, version, state.engine)
            for change in news:
                yield _event(change)
                version, spoken = change.version, time.monotonic()
            if news and news[-1].state.settled:
                return
            if time.monotonic() - spoken > _KEEP_ALIVE:
                # Proxies cut a connection that says nothing.
                yield ": still here\n\n"
                spoken = time.monotonic()
            await watch.wait()


def _event(change: OrderChange) -> str:
    body: dict[str, object] = {
        "orderId": change.order_id,
        "state": change.state.value,
        "version": change.version,
        "at": change.at.isoformat().replace("+00:00", "Z"),
    }
    if change.rejection is not None:
        body["rejection"] = {"reason": change.rejection.reason, "service": change.rejection.service}
    return f"id: {change.version}\nevent: order\ndata: {msgspec.json.encode(body).decode()}\n\n"
