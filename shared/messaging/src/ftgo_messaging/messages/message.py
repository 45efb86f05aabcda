"""What travels: a message is headers (pairs of strings) plus a body (bytes).

The names of headers are the attributes of CloudEvents 1.0 and its extensions; each broker's adapter writes them as
CloudEvents' binding for that broker says (``transports.cloudevents``). They are constants here; nothing else spells
them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

ID = "id"
TYPE = "type"
SCHEMA = "dataschema"
KIND = "messagekind"
SOURCE = "source"
TIME = "time"
SUBJECT = "subject"
CORRELATION_ID = "correlationid"
CAUSATION_ID = "causationid"
SEQUENCE = "sequence"
REPLY_CHANNEL = "replychannel"
IN_REPLY_TO = "inreplyto"
OUTCOME = "outcome"
SAGA_TYPE = "sagatype"
SAGA_ID = "sagaid"
SPEC_VERSION = "specversion"
CONTENT_TYPE = "datacontenttype"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
KEY = "partitionkey"
"""Where a broker has no key of its own beside the headers."""
ATTRIBUTES = frozenset(
    {ID, TYPE, SCHEMA, KIND, SOURCE, TIME, SUBJECT, CORRELATION_ID, CAUSATION_ID, SEQUENCE, REPLY_CHANNEL}
    | {IN_REPLY_TO, OUTCOME, SAGA_TYPE, SAGA_ID, SPEC_VERSION, CONTENT_TYPE, KEY}
)

LAST_SEQUENCE = 999_999_999
"""The highest version that an aggregate may come to: far more than one ever does, and room in an integer column."""
LONGEST_HEADER = 200
"""Characters of a header. They are copied from message to message: without a bound one could grow until its message
can never be sent."""
MOST_HEADERS = 20_000
LARGEST_HEADERS = 1_000_000
"""What a record's headers may take in memory, each with 50 bytes besides its own. A broker takes half a million of two
bytes in a record."""
LARGEST_MESSAGE = 990_000
"""Bytes of a message, key and headers included: what a broker takes without special settings (1,048,588), and the
publisher (1,000,000), who counts what the format adds."""


class Kind(StrEnum):
    """What a message means to its receiver."""

    COMMAND = "command"
    REPLY = "reply"
    EVENT = "event"
    DOCUMENT = "document"


class Outcome(StrEnum):
    """What a reply says about its command."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True)
class Message:
    """One message, immutable. ``id`` is given once, when the outbox row is written, and never changes on the way:
    it is the key of duplicate detection. ``key`` decides the lane, and so what is ordered with what."""

    id: str
    channel: str
    key: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return self.headers.get(TYPE, "")


def size_of(message: Message) -> int:
    """Bytes of a message that is to be sent, key and headers included."""
    headers = sum(len(name.encode()) + len(value.encode()) for name, value in message.headers.items())
    return len(message.key.encode()) + headers + len(message.body)


def size_of_headers(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(LARGEST_HEADERS // MOST_HEADERS + len(name) + len(value or b"") for name, value in headers)


def renamed(headers: dict[str, str]) -> dict[str, str]:
    """The headers of a row that an earlier release has written: with the names that they have in Kafka."""
    if ID in headers or "ce_id" not in headers:
        return headers
    return {CONTENT_TYPE if n == "content-type" else n.removeprefix("ce_"): v for n, v in headers.items()}
