"""A message as a frame, and a frame as a record.

There is no binding of CloudEvents to STOMP. Headers are written as its binding to HTTP does: ``ce-`` before the name of
an attribute, and ``%XX`` for what a header cannot hold (here control characters) and for the percent sign itself. The
key is the attribute ``partitionkey``. The body is sent with its length, so it is bytes for the broker (a BytesMessage).
"""

from urllib.parse import unquote_to_bytes

from stompman import MessageFrame

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports.activemq.names import topic
from ftgo_messaging.transports.cloudevents import from_wire, to_wire
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import Record

_PREFIX = "ce-"
_LONGEST_LINE = 10_000
"""Bytes of a header with its name. From 10,240 on the broker closes the connection."""
_MOST_HEADERS = 900
"""With more than 1,000 it does so too."""
_UNFIT = {n: f"%{n:02X}" for n in (*range(32), 0x7F, ord("%"))} | {ord("\\"): "\\\\", ord(":"): "\\c"}
"""And STOMP's own escapes. stompman writes character by character, which takes 0.15 ms for a message."""
_OF_THE_BROKER = frozenset(
    {"destination", "message-id", "subscription", "ack", "expires", "priority", "persistent", "timestamp"}
    | {"original-destination", "redelivered", "content-length", "browser"}
)


def frame_of(message: Message, lanes: int, max_bytes: int) -> tuple[bytes, str]:
    """What follows the first line of a SEND frame, and why it is refused, or an empty text."""
    wire = to_wire({**message.headers, m.KEY: message.key}, _PREFIX)
    if len(wire) > _MOST_HEADERS:
        return b"", f"{len(wire)} headers, at most {_MOST_HEADERS}"
    try:
        lines = [f"{name.translate(_UNFIT)}:{value.translate(_UNFIT)}\n".encode() for name, value in wire]
    except UnicodeEncodeError as error:
        return b"", f"a header is no text: {error}"
    if (longest := max(map(len, lines))) > _LONGEST_LINE:
        return b"", f"a header of {longest} bytes, at most {_LONGEST_LINE}"
    place = topic(message.channel, lane_of(message.key, lanes))
    lines.append(f"destination:{place}\npersistent:true\ncontent-length:{len(message.body)}\n\n".encode())
    frame = b"".join([*lines, message.body, b"\0"])
    return (frame, "") if len(frame) <= max_bytes else (b"", f"{len(frame)} bytes, at most {max_bytes}")


def record_of(frame: MessageFrame, channel: str, lane: str) -> Record:
    """``lane`` is CHANNEL/LANE. The broker's message id is the same at every delivery, and after its restart."""
    own = [(n, unquote_to_bytes(str(v))) for n, v in frame.headers.items() if n not in _OF_THE_BROKER]
    headers = from_wire(((unquote_to_bytes(n).decode(errors="replace"), v) for n, v in own), _PREFIX)
    key = next((value for name, value in headers if name == m.KEY), None)
    headers = [(name, value) for name, value in headers if name != m.KEY]
    return Record(channel, key, headers, frame.body, f"{lane}@{frame.headers.get('message-id', '')}")
