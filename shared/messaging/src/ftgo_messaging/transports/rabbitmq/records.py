"""Messages on the wire: CloudEvents' attributes as headers ``cloudEvents:NAME``, the key among them. What others have
put into a queue is read as far as it goes."""

import contextlib
import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports import cloudevents
from ftgo_messaging.transports.port import Record

PREFIX = "cloudEvents:"
_ALSO = "cloudEvents_"  # what the binding recommends besides, for those to whom a colon is none of a name's characters
_UNREADABLE = "ftgo:unreadable"
_PLAIN = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_PERSISTENT = 2


def bound_decoding() -> None:
    """Headers that the client cannot read must not cost the connection: their message would come again, for ever."""
    unmarshal = ContentHeader.unmarshal

    def guarded(self: ContentHeader, data: bytes) -> None:
        try:
            unmarshal(self, data)
        except Exception as error:
            self.properties = Basic.Properties(headers={_UNREADABLE: f"{error!r}"})

    ContentHeader.unmarshal = guarded  # type: ignore[method-assign]


bound_decoding()


def properties(message: Message, identity: str) -> Basic.Properties:
    """``identity`` is the message's id, but where it must not be."""
    headers = dict(cloudevents.to_wire(message.headers, PREFIX))
    content_type = headers.pop(cloudevents.CONTENT_TYPE, None)
    headers[PREFIX + m.KEY] = message.key
    return Basic.Properties(
        content_type=content_type,
        message_id=identity,
        delivery_mode=_PERSISTENT,
        headers=headers,  # type: ignore[arg-type]
    )


def record(channel: str, lane: str, delivered: DeliveredMessage) -> Record:
    """``lane`` is CHANNEL/LANE."""
    found = delivered.header.properties
    headers: Mapping[str, Any] = found.headers or {}
    if _UNREADABLE in headers:
        place = _hash(b"", delivered.body)
        return Record(channel, None, [], delivered.body, f"{lane}@{place}", f"its headers: {headers[_UNREADABLE]}")
    wire = [(_name(name), _bytes(value)) for name, value in headers.items()]
    if found.content_type:
        wire.append((cloudevents.CONTENT_TYPE, found.content_type.encode()))
    named = cloudevents.from_wire(wire, PREFIX)
    key = next((value for name, value in named if name == m.KEY), None)
    identity = found.message_id
    place = identity if identity and _PLAIN.fullmatch(identity) else _hash(repr(wire).encode(), delivered.body)
    rest = [(name, value) for name, value in named if name != m.KEY]
    return Record(channel, key, rest, delivered.body, f"{lane}@{place}")


def _name(wire: str) -> str:
    return PREFIX + wire[len(_ALSO) :] if wire.startswith(_ALSO) else wire


def _hash(headers: bytes, body: bytes) -> str:
    """RabbitMQ has no positions. Two messages without an id that are the same in all are one."""
    return f"sha256:{hashlib.sha256(headers + b'|' + body).hexdigest()[:20]}"


def _bytes(value: Any) -> bytes | None:
    """A header of any of AMQP's types."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat().encode()
    with contextlib.suppress(ValueError, RecursionError):
        return json.dumps(value, default=str).encode()
    return repr(value).encode()
