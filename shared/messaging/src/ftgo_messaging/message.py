"""What travels: a message is headers (pairs of strings) plus a body (bytes). ``Received`` is one before it is believed.

On Kafka the headers follow the CloudEvents 1.0 Kafka binding in binary mode (names start with ``ce_``),
so tools that know CloudEvents read our messages. Names are constants here; nothing else spells them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

ID = "ce_id"
TYPE = "ce_type"
SCHEMA = "ce_dataschema"
KIND = "ce_messagekind"
SOURCE = "ce_source"
TIME = "ce_time"
SUBJECT = "ce_subject"
CORRELATION_ID = "ce_correlationid"
CAUSATION_ID = "ce_causationid"
SEQUENCE = "ce_sequence"
REPLY_CHANNEL = "ce_replychannel"
IN_REPLY_TO = "ce_inreplyto"
OUTCOME = "ce_outcome"
SAGA_TYPE = "ce_sagatype"
SAGA_ID = "ce_sagaid"
SPEC_VERSION = "ce_specversion"
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

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
    it is the key of duplicate detection. ``key`` decides the partition, and so what is ordered with what."""

    id: str
    channel: str
    key: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return self.headers.get(TYPE, "")


@dataclass(frozen=True, slots=True)
class Received:
    """A record as it came from the broker, nothing decoded yet."""

    channel: str
    partition: int
    offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    body: bytes | None


def size_of_headers(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(LARGEST_HEADERS // MOST_HEADERS + len(name) + len(value or b"") for name, value in headers)
