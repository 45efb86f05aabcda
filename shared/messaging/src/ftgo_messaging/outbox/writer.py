"""Builds messages, and the outbox rows that the unit of work writes in the business transaction."""

import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import MetaData

from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.documents import Document
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.message import Kind, Message, Outcome
from ftgo_messaging.messages.registry import MessageType, by_class
from ftgo_messaging.messages.replies import Failure, Reply
from ftgo_messaging.outbox.table import SHARDS, outbox_table
from ftgo_messaging.runtime.errors import Undecodable


@cache
def _type_headers(kind: MessageType) -> dict[str, str]:
    return {
        m.SPEC_VERSION: "1.0",
        m.TYPE: kind.name,
        m.SCHEMA: kind.schema,
        m.KIND: kind.kind.value,
        m.CONTENT_TYPE: codec.JSON,
    }


def _headers(kind: MessageType, message_id: str, source: str, subject: str, cause: Message | None) -> dict[str, str]:
    headers = dict(_type_headers(kind))
    headers[m.ID] = message_id
    headers[m.SOURCE] = source
    headers[m.SUBJECT] = subject
    headers[m.TIME] = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    if cause is None:
        headers[m.CORRELATION_ID] = message_id
        return headers
    headers[m.CORRELATION_ID] = cause.headers.get(m.CORRELATION_ID, cause.id)
    if cause.id:
        headers[m.CAUSATION_ID] = cause.id
    for name in (m.TRACEPARENT, m.TRACESTATE):
        if name in cause.headers:
            headers[name] = cause.headers[name]
    return headers


def command_message(
    command: Command[Any],
    message_id: str,
    source: str,
    cause: Message | None,
    reply_channel: Channel | None,
    saga_type: str | None,
    saga_id: str | None,
) -> Message:
    kind = by_class(type(command))
    if kind.channel is None or kind.key is None:
        raise LookupError(f"{kind.name} has no command channel")
    key = kind.key(command)
    headers = _headers(kind, message_id, source, key, cause)
    if reply_channel is not None:
        headers[m.REPLY_CHANNEL] = reply_channel.name
    if saga_type is not None and saga_id is not None:
        headers[m.SAGA_TYPE] = saga_type
        headers[m.SAGA_ID] = saga_id
    return Message(message_id, kind.channel, key, headers, codec.encode(command))


def reply_message(reply: Reply, message_id: str, source: str, command: Message | None) -> Message | None:
    """The answer to ``command``, or None when it asked for none. Raises Undecodable when the return address is not
    one that this command type allows: a forged address must not decide where a service writes."""
    if command is None or m.REPLY_CHANNEL not in command.headers:
        return None
    channel = command.headers[m.REPLY_CHANNEL]
    kind = by_class(type(reply))
    key = command.headers.get(m.SAGA_ID, command.id)
    headers = _headers(kind, message_id, source, key, command)
    headers[m.IN_REPLY_TO] = command.id
    headers[m.OUTCOME] = (Outcome.FAILURE if isinstance(reply, Failure) else Outcome.SUCCESS).value
    for name in (m.SAGA_TYPE, m.SAGA_ID):
        if name in command.headers:
            headers[name] = command.headers[name]
    return Message(message_id, channel, key, headers, codec.encode(reply))


def event_message(
    event: DomainEvent,
    message_id: str,
    source: str,
    cause: Message | None,
    subject: str,
    version: int,
    reply_channel: Channel | None = None,
) -> Message:
    kind = by_class(type(event))
    if kind.channel is None or kind.kind is not Kind.EVENT:
        raise LookupError(f"{kind.name} has no event channel")
    if kind.key is not None and kind.key(event) != subject:
        raise ValueError(f"{kind.name}: the body is about {kind.key(event)!r}, and the subject is {subject!r}")
    if not 1 <= version <= m.LAST_SEQUENCE:
        raise ValueError(f"{kind.name}: {version} is no version: they count from 1 to {m.LAST_SEQUENCE}")
    headers = _headers(kind, message_id, source, subject, cause)
    headers[m.SEQUENCE] = str(version)
    if reply_channel is not None:
        headers[m.REPLY_CHANNEL] = reply_channel.name
    return Message(message_id, kind.channel, subject, headers, codec.encode(event))


def document_message(document: Document, message_id: str, source: str, cause: Message | None) -> Message:
    kind = by_class(type(document))
    if kind.channel is None or kind.kind is not Kind.DOCUMENT or kind.key is None:
        raise LookupError(f"{kind.name} has no document channel")
    key = kind.key(document)
    return Message(
        message_id, kind.channel, key, _headers(kind, message_id, source, key, cause), codec.encode(document)
    )


def check_return_address(kind: MessageType, message: Message) -> None:
    """Raises Undecodable when a message names a reply channel that its type does not list."""
    address = message.headers.get(m.REPLY_CHANNEL)
    if address is not None and address not in kind.reply_channels:
        raise Undecodable(f"{kind.name} may not be answered to {address!r}")


class MessageTooLarge(ValueError):
    """No broker takes this message. In the outbox it would stop its key for ever."""


def check_size(message: Message) -> None:
    """Raises MessageTooLarge for one that could never leave the outbox."""
    size = len(message.body) + len(message.key.encode())
    size += sum(len(name) + len(value.encode()) for name, value in message.headers.items())
    if size > m.LARGEST_MESSAGE:
        raise MessageTooLarge(f"{message.type} {message.id} has {size} bytes: at most {m.LARGEST_MESSAGE} can be sent")


def shard_of(key: str) -> int:
    """Stable across processes and versions: it decides which relay publishes a key."""
    return zlib.crc32(key.encode()) % SHARDS


OUTBOX = outbox_table(MetaData())


def rows_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as rows of the outbox, in the order given."""
    return [
        {
            "message_id": x.id,
            "channel": x.channel,
            "key": x.key,
            "shard": shard_of(x.key),
            "headers": msgspec.json.encode(x.headers).decode(),
            "body": x.body,
        }
        for x in messages
    ]
