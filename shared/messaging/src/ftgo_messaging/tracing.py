"""What the messages of a request have in common: a conversation, and the trace that the request belongs to.

Both travel in headers, across the outbox and the relay, from message to message. No spans are made here: whoever wants
them starts one for each message from its ``traceparent`` (W3C Trace Context).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from ftgo_messaging.ids import new_id
from ftgo_messaging.message import CORRELATION_ID, TRACEPARENT, TRACESTATE, Message

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE_LIMIT = 512
_trace: ContextVar[Mapping[str, str]] = ContextVar("trace", default={})  # noqa: B039 - never changed


@contextmanager
def traced(headers: Mapping[str, str]) -> Iterator[None]:
    """Steps that are made inside belong to the trace that ``headers`` name. What is no trace is ignored."""
    parent = headers.get(TRACEPARENT, "")
    if not _TRACEPARENT.fullmatch(parent):
        yield
        return
    trace = {TRACEPARENT: parent}
    state = headers.get(TRACESTATE, "")
    if 0 < len(state) <= _STATE_LIMIT and state.isascii():
        trace[TRACESTATE] = state
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)


def origin() -> Message:
    """What stands for a request as the cause of its messages. It has no id: it never was a message."""
    return Message(id="", channel="", key="", headers={CORRELATION_ID: new_id(), **_trace.get()}, body=b"")
