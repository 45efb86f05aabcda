"""Whether a record is a message: what has to be right before anything of it is believed, or copied on.

Who may write to a channel at all is the broker's business. But whatever is written there by mistake or malice, an id, a
key or a header of it must not reach further than the record itself.
"""

import re
from uuid import UUID

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.registry import MessageType, by_name, is_reply_channel
from ftgo_messaging.messages.tracing import trace_in
from ftgo_messaging.runtime.errors import Undecodable
from ftgo_messaging.transports.port import Record

_BOUNDED = (
    m.SOURCE,
    m.SUBJECT,
    m.CORRELATION_ID,
    m.CAUSATION_ID,
    m.SEQUENCE,
    m.REPLY_CHANNEL,
    m.IN_REPLY_TO,
    m.SAGA_TYPE,
    m.SAGA_ID,
)
_SEQUENCE = re.compile("[1-9][0-9]{0,8}", re.ASCII)


def open_envelope(received: Record) -> tuple[MessageType, Message]:
    """The message and its type. Raises Undecodable unless it has an id, a source and a type of this channel, and all
    headers within their bounds. A trace that is none is left out."""
    try:
        headers = {name: value.decode() for name, value in received.headers if value is not None}
        key = (received.key or b"").decode()
    except UnicodeDecodeError as error:
        raise Undecodable(f"headers or key are not UTF-8: {error}") from error
    kind = by_name(headers.get(m.TYPE, ""))
    _check_channel(kind, received.channel)
    message_id = headers.get(m.ID, "")
    if not _is_uuid(message_id):
        raise Undecodable(f"{m.ID} is {message_id!r}, not a UUID")
    for name in _BOUNDED:
        value = headers.get(name)
        if value is not None and (len(value) > m.LONGEST_HEADER or not value.isprintable()):
            raise Undecodable(f"{name} has {len(value)} characters: more than {m.LONGEST_HEADER}, or unprintable ones")
    source = headers.get(m.SOURCE, "")
    if not source or " " in source:
        raise Undecodable(f"{m.SOURCE} is {source!r}: it must name the sender, without blanks")
    if kind.kind is Kind.EVENT and not _SEQUENCE.fullmatch(headers.get(m.SEQUENCE, "")):
        raise Undecodable(f"{m.SEQUENCE} is {headers.get(m.SEQUENCE)!r}, not a number from 1 to {m.LAST_SEQUENCE}")
    trace = trace_in(headers)
    headers.pop(m.TRACEPARENT, None)
    headers.pop(m.TRACESTATE, None)
    headers |= trace
    return kind, Message(message_id, received.channel, key, headers, received.body or b"")


def _check_channel(kind: MessageType, channel: str) -> None:
    """Replies travel on every channel that some type names for its answers; all else on its own channel alone."""
    belongs = is_reply_channel(channel) if kind.channel is None else kind.channel == channel
    if not belongs:
        raise Undecodable(f"{kind.name} is no type of the channel {channel}")


def _is_uuid(text: str) -> bool:
    # Only in the form in which the database gives it back: another would not be found among the ids that are new.
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def key_of(kind: MessageType, message: Message, body: object) -> str | None:
    """The key that the message must have by the rule of its type. None when its headers do not tell.

    Commands and documents: what the channel's rule makes of the body. Events: their subject, which must be what the
    channel's rule says, if it has one. Replies: the saga's id, or for want of a saga that of the answered message."""
    if kind.kind is Kind.REPLY:
        return message.headers.get(m.SAGA_ID) or message.headers.get(m.IN_REPLY_TO)
    computed = None if kind.key is None else kind.key(body)
    if kind.kind is not Kind.EVENT:
        return computed
    subject = message.headers.get(m.SUBJECT)
    return subject if computed is None or computed == subject else None
