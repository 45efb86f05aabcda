"""What a dead letter is, how it is kept in its row, and how it is shown.

A record may hold anything: bytes that are no text, U+0000, a header of a megabyte. Nothing of it may make the row
impossible, or its reader fail: bytes are kept as bytes, and what is text is escaped and bounded first.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ftgo_messaging.messages import message as m
from ftgo_messaging.transports.port import Record

_ID_CHARACTERS = 200
_ERROR_CHARACTERS = 8000


class State(StrEnum):
    DEAD = "DEAD"
    PARKED = "PARKED"
    REDRIVE = "REDRIVE"
    REDRIVEN = "REDRIVEN"
    DISCARDED = "DISCARDED"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Key, headers and body are the bytes that came."""

    id: int
    consumer: str
    message_id: str | None
    channel: str
    origin: str
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    body: bytes | None
    error: str
    failed_at: datetime
    state: State
    attempts: int
    parks_key: bool
    resolved_at: datetime | None

    @property
    def type(self) -> str | None:
        return _header(self.received, m.TYPE)

    @property
    def received(self) -> Record:
        """The record as it came."""
        return Record(self.channel, self.key, self.headers, self.body, self.origin)


def _header(received: Record, name: str) -> str | None:
    """A header as readable text; what is not UTF-8 of it is replaced."""
    value = next((v for n, v in received.headers if n == name), None)
    return None if value is None else value.decode(errors="replace")


# -- the row ---------------------------------------------------------------------------------------------------------


def to_row(received: Record, error: str) -> dict[str, Any]:
    """What is kept of a record. The error is bounded to 8,000 characters, its beginning and its end."""
    message_id = _header(received, m.ID)
    return {
        "message_id": None if message_id is None else storable(message_id, _ID_CHARACTERS),
        "channel": received.channel,
        "origin": storable(received.origin, _ID_CHARACTERS * 2),
        "key": received.key,
        "headers": json.dumps([_header_to_json(*h) for h in received.headers]),
        "body": received.body,
        "error": storable(error),
    }


def from_row(row: Mapping[str, Any]) -> DeadLetter:
    values = dict(row)
    headers = [_header_from_json(*h) for h in json.loads(row["headers"])]
    partition, position = values.pop("partition"), values.pop("position")
    if row["origin"] is None:  # of an earlier release, which knew only Kafka
        values["origin"] = f"{row['channel']}/{partition}@{position}"
        headers = [(name.removeprefix("ce_"), value) for name, value in headers]
    return DeadLetter(**{**values, "headers": headers, "state": State(row["state"])})


def storable(text: str, characters: int = _ERROR_CHARACTERS) -> str:
    """As PostgreSQL's text takes it: without U+0000 and halves of surrogate pairs, and not for ever long."""
    if len(text) > characters:
        left_out = f" ... {len(text) - characters} characters ... "
        text = text[: characters // 4] + left_out + text[-(characters - characters // 4) :]
    return text.encode(errors="backslashreplace").decode().replace("\x00", "\\0")


# json, not msgspec: it escapes every character that is not ASCII, and so takes each string that Python can hold.


def _header_to_json(name: str, value: bytes | None) -> list[str | None]:
    """[name, text]; for bytes that are not UTF-8, [name, null, base64]."""
    try:
        return [name, None if value is None else value.decode()]
    except UnicodeDecodeError:
        return [name, None, b64encode(value or b"").decode()]


def _header_from_json(name: str, value: str | None = None, encoded: str | None = None) -> tuple[str, bytes | None]:
    if encoded is not None:
        return name, b64decode(encoded)
    return name, None if value is None else value.encode()


# -- for readers -----------------------------------------------------------------------------------------------------


def document(letter: DeadLetter) -> dict[str, Any]:
    """The letter for people and programs: text where it is text, the exact body in base64 where it is not."""
    body = letter.body
    try:
        bodies = {"body": None if body is None else body.decode()}
    except UnicodeDecodeError:
        bodies = {"bodyBase64": b64encode(body or b"").decode()}
    return {
        "id": letter.id,
        "state": letter.state.value,
        "attempts": letter.attempts,
        "consumer": letter.consumer,
        "channel": letter.channel,
        "origin": letter.origin,
        "key": _readable(letter.key),
        "messageId": letter.message_id,
        "type": letter.type,
        "failedAt": letter.failed_at.isoformat(),
        "parksKey": letter.parks_key,
        "resolvedAt": None if letter.resolved_at is None else letter.resolved_at.isoformat(),
        "headers": [[_readable(name.encode(errors="surrogatepass")), _readable(v)] for name, v in letter.headers],
        **bodies,
        "error": letter.error,
    }


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
