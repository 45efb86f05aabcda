"""CloudEvents on a broker: the attributes of a message as headers of the broker (binary mode), or one JSON document.

Each binding puts something of its own before the names of attributes: ``ce_`` in Kafka, ``cloudEvents:`` in AMQP,
``ce-`` in HTTP. The content type is the broker's own header everywhere, and a trace travels under the names of W3C."""

import base64
from collections.abc import Iterable, Mapping

import msgspec

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import ATTRIBUTES, Message

CONTENT_TYPE = "content-type"
_AS_THEY_ARE = {m.CONTENT_TYPE: CONTENT_TYPE, m.TRACEPARENT: m.TRACEPARENT, m.TRACESTATE: m.TRACESTATE}
_BACK = {wire: name for name, wire in _AS_THEY_ARE.items()}


def to_wire(headers: Mapping[str, str], prefix: str) -> list[tuple[str, str]]:
    """The headers of a message as those of a record."""
    return [(_AS_THEY_ARE.get(name) or prefix + name, value) for name, value in headers.items()]


def from_wire(headers: Iterable[tuple[str, bytes | None]], prefix: str) -> list[tuple[str, bytes | None]]:
    """The headers of a record as those of a message. A header that has the name of an attribute but not its prefix is
    none: it is kept as ``header:NAME``."""
    return [(_name(name, prefix), value) for name, value in headers]


def _name(wire: str, prefix: str) -> str:
    if wire.startswith(prefix):
        return wire[len(prefix) :]
    return _BACK.get(wire) or (f"header:{wire}" if wire in ATTRIBUTES else wire)


# -- structured mode: where a broker allows few headers, or none -----------------------------------------------------


def to_envelope(message: Message) -> bytes:
    """One JSON document with everything, key included (``partitionkey``, of the partitioning extension)."""
    data = {"data_base64": base64.b64encode(message.body).decode()}
    return msgspec.json.encode({**message.headers, m.KEY: message.key, **data})


def from_envelope(envelope: bytes) -> tuple[bytes | None, list[tuple[str, bytes | None]], bytes | None, str]:
    """Key, headers and body, and an empty text; or the whole as the body, and why it cannot be read."""
    try:
        found = msgspec.json.decode(envelope, type=dict[str, str])
        body = base64.b64decode(found.pop("data_base64"), validate=True)
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
        return None, [], envelope, f"it is no CloudEvent in JSON: {error!r}"
    key = found.pop(m.KEY, None)
    headers: list[tuple[str, bytes | None]] = [(name, value.encode()) for name, value in found.items()]
    return None if key is None else key.encode(), headers, body, ""
