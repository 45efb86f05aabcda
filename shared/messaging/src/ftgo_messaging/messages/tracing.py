"""What the messages of a request have in common: a conversation, and the trace that the request belongs to.

Both travel in headers, across the outbox and the relay, from message to message. No spans are made here: whoever wants
them starts one for each message from its ``traceparent`` (W3C Trace Context).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import CORRELATION_ID, TRACEPARENT, TRACESTATE, Message

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE_LIMIT = 512
_origin: ContextVar[Mapping[str, str] | None] = ContextVar("origin", default=None)


def trace_in(headers: Mapping[str, str]) -> dict[str, str]:
    """The trace that the headers name, for headers of one's own; empty when it is none. A state that is longer than 512
    characters, or unprintable, is left out."""
    parent = headers.get(TRACEPARENT, "")
    if not _TRACEPARENT.fullmatch(parent):
        return {}
    state = headers.get(TRACESTATE, "")
    if 0 < len(state) <= _STATE_LIMIT and state.isascii() and state.isprintable():
        return {TRACEPARENT: parent, TRACESTATE: state}
    return {TRACEPARENT: parent}


@contextmanager
def traced(headers: Mapping[str, str]) -> Iterator[str]:
    """Steps that are made inside belong to one new conversation, and to the trace that ``headers`` name. What is no
    trace is ignored. Gives the trace's id; without a trace it is the conversation's id without its dashes, by which
    the messages can be found as well."""
    conversation = new_id()
    trace = trace_in(headers)
    token = _origin.set({CORRELATION_ID: conversation, **trace})
    try:
        yield trace[TRACEPARENT].split("-")[1] if trace else conversation.replace("-", "")
    finally:
        _origin.reset(token)


def origin() -> Message:
    """What stands for a request as the cause of its messages. It has no id: it never was a message."""
    return Message(id="", channel="", key="", headers=_origin.get() or {CORRELATION_ID: new_id()}, body=b"")
