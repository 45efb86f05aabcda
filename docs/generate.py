"""Writes docs/openapi/*.json and docs/asyncapi.json from the code: `make docs`. A test compares them with the code.

AsyncAPI comes from the declared channels, not from the subscribers: they hand whole batches to one handler, which says
nothing about the messages.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any, get_args

import ftgo_messaging.messages.message as m
import msgspec
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_contracts.money import Money
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.registry import MessageType, by_class, registered
from ftgo_messaging.messages.replies import Failure

HERE = Path(__file__).parent
SERVICES = ("consumer", "order", "kitchen", "accounting")
HEADERS = {
    m.ID: "UUIDv7, given once; the key of duplicate detection",
    m.TYPE: "the stable name of the type",
    m.SCHEMA: "type and schema version",
    m.KIND: "command, reply, event or document",
    m.SOURCE: "the service that sends",
    m.TIME: "RFC 3339, UTC",
    m.SUBJECT: "the id of the aggregate",
    m.CORRELATION_ID: "the conversation: the id of its first message",
    m.CAUSATION_ID: "the id of the message that caused this one",
    m.SEQUENCE: "events: the aggregate's version",
    m.REPLY_CHANNEL: "commands: where the answer goes; absent: no answer is wanted",
    m.IN_REPLY_TO: "replies: the id of the command",
    m.OUTCOME: "replies: SUCCESS or FAILURE",
    m.SAGA_TYPE: "the type of the saga that asks",
    m.SAGA_ID: "the saga that asks",
    m.TRACEPARENT: "W3C trace context",
    m.TRACESTATE: "W3C trace context",
}
ABOUT = (
    "Commands, replies and events. The headers are attributes of CloudEvents, as the binding of the broker writes "
    "them: `ce_id` in Kafka, `cloudEvents:id` in AMQP, `id` or `ce-id` elsewhere. Those of W3C's trace context have no "
    "prefix."
)
ALWAYS = [m.ID, m.TYPE, m.SCHEMA, m.KIND, m.SOURCE, m.TIME, m.SUBJECT, m.CORRELATION_ID]


def openapi(service: str) -> dict[str, Any]:
    """What the running service gives at /openapi.json. Nothing is connected to."""
    settings = getattr(importlib.import_module(f"ftgo_{service}.settings"), f"{service.capitalize()}Settings")
    nowhere = {"database_url": "postgresql://localhost/docs", "FTGO_KAFKA_BOOTSTRAP": "localhost:1"}
    app = importlib.import_module(f"ftgo_{service}.bootstrap").build(settings(**nowhere)).app
    schema: dict[str, Any] = app.openapi()
    return schema


def _reply_of(command: MessageType) -> MessageType:
    """R of Command[R]."""
    (base,) = command.cls.__orig_bases__  # type: ignore[attr-defined]
    return by_class(get_args(base)[0])


def _refusals_of(command: MessageType) -> list[MessageType]:
    """The failures that the owner of the command declares, and the plain one."""
    owner = command.cls.__module__.rpartition(".")[0]
    failures = [t for t in registered() if issubclass(t.cls, Failure) and t.cls.__module__.startswith(f"{owner}.")]
    return [*sorted(failures, key=lambda t: t.name), by_class(Failure)]


def _answers_to(command: MessageType) -> list[MessageType]:
    return [_reply_of(command), *_refusals_of(command)]


def _on(channel: Channel) -> list[MessageType]:
    if channel.kind is not Kind.REPLY:
        return list(channel.types.values())
    answered_here = [c for x in ALL_CHANNELS for c in x.types.values() if channel.name in c.reply_channels]
    return list(dict.fromkeys(answer for command in answered_here for answer in _answers_to(command)))


def _operation(channel: Channel, kind: MessageType) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": "send" if channel.kind is Kind.EVENT else "receive",
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{kind.name}"}],
    }
    if kind.reply_channels:
        operation["reply"] = {
            "address": {"location": f"$message.header#/{m.REPLY_CHANNEL}"},
            "messages": [
                {"$ref": f"#/channels/{reply}/messages/{answer.name}"}
                for reply in sorted(kind.reply_channels)
                for answer in _answers_to(kind)
            ],
        }
    return operation


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3: every channel, the types that it carries, and what answers them."""
    for service in SERVICES:
        for module in ("commands", "replies", "events"):
            if importlib.util.find_spec(f"ftgo_contracts.{service}.{module}"):
                importlib.import_module(f"ftgo_contracts.{service}.{module}")
    types = list(dict.fromkeys(t for c in ALL_CHANNELS for t in _on(c)))
    money = {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$", "examples": ["61.70"]}
    schemas, components = msgspec.json.schema_components(
        [t.cls for t in types],
        schema_hook=lambda cls: money if cls is Money else None,
        ref_template="#/components/schemas/{name}",
    )
    headers = {"type": "object", "required": ALWAYS, "properties": {n: _text(d) for n, d in HEADERS.items()}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "FTGO", "version": "0.1.0", "description": ABOUT},
        "defaultContentType": "application/json",
        "channels": {
            c.name: {
                "address": c.name,
                "messages": {t.name: {"$ref": f"#/components/messages/{t.name}"} for t in _on(c)},
            }
            for c in ALL_CHANNELS
        },
        "operations": {t.name: _operation(c, t) for c in ALL_CHANNELS for t in c.types.values()},
        "components": {
            "messages": {
                t.name: {
                    "name": t.name,
                    "title": t.cls.__name__,
                    "headers": {"$ref": "#/components/schemas/Headers"},
                    "payload": schema,
                }
                for t, schema in zip(types, schemas, strict=True)
            },
            "schemas": {"Headers": headers, **components},
        },
    }


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


def generated() -> dict[Path, str]:
    """Each file with the text that it should have."""
    documents = {HERE / "openapi" / f"{s}.json": openapi(s) for s in SERVICES}
    documents[HERE / "asyncapi.json"] = asyncapi()
    return {path: json.dumps(document, indent=1, ensure_ascii=False) + "\n" for path, document in documents.items()}


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(HERE.parent)}\n")
