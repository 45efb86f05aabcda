"""A message on the wire: CloudEvents' binary mode for NATS. Every attribute is a header ``ce-NAME``, the content type
too (NATS's own ``content-type`` would announce the structured mode), percent-encoded as the binding says."""

import re
from urllib.parse import quote, unquote_to_bytes

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports.cloudevents import from_wire
from ftgo_messaging.transports.lanes import lane_of

PREFIX = "ce-"
_AS_THEY_ARE = frozenset({m.TRACEPARENT, m.TRACESTATE})
_SAFE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_NOT_SAFE = re.compile(r"[^!#$&-~]")  # space, quote, percent, and all that is not printable ASCII
_BEGIN = b"NATS/1.0"
OVERHEAD = len(_BEGIN) + 4


def stream_of(channel: str) -> str:
    """A name may hold no dots and a few more; two channels never share one."""
    return re.sub(r"[^A-Za-z0-9-]", lambda c: "__" if c[0] == "." else f"_{c[0].encode().hex()}", channel)


def durable_of(consumer: str, lane: int) -> str:
    return f"{stream_of(consumer)}-{lane}"


def subject_of(channel: str, lane: int) -> str:
    return f"ftgo.{channel}.{lane}"


def subject_for(message: Message, lanes: int) -> str:
    return subject_of(message.channel, lane_of(message.key, lanes))


def headers_of(message: Message) -> dict[str, str]:
    headers = {n if n in _AS_THEY_ARE else PREFIX + n: _encoded(value) for n, value in message.headers.items()}
    headers[PREFIX + m.KEY] = _encoded(message.key)
    return headers


def size_of(headers: dict[str, str], body: bytes) -> int:
    """Of a message on the wire; all of its headers are ASCII."""
    return OVERHEAD + sum(len(name) + len(value) + 4 for name, value in headers.items()) + len(body)


def read(block: bytes) -> tuple[bytes | None, list[tuple[str, bytes | None]], str]:
    """Key and headers, and an empty text; or what could be read, and why not all. Nothing is believed: others publish
    too, and the server takes any bytes."""
    begin, *lines = block.removesuffix(b"\r\n\r\n").split(b"\r\n") if block else [_BEGIN]
    defect = "" if begin == _BEGIN else f"its headers begin with {begin[:100]!r}, not with {_BEGIN!r}"
    found: list[tuple[str, bytes | None]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name.isascii():
            defect = defect or f"{line[:100]!r} is no header"
            continue
        text = name.decode("ascii").strip()
        # A trace is encoded by nobody but us, and then only if it is none.
        encoded = text.startswith(PREFIX) or text in _AS_THEY_ARE
        found.append((text, unquote_to_bytes(value.strip()) if encoded else value.strip()))
    headers = from_wire(found, PREFIX)
    place = next((i for i, (name, _) in enumerate(headers) if name == m.KEY), None)
    return (None if place is None else headers.pop(place)[1]), headers, defect


def _encoded(value: str) -> str:
    return quote(value, safe=_SAFE) if _NOT_SAFE.search(value) else value
