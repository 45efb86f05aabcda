"""What is believed of a record, and what is not."""

from dataclasses import replace
from typing import Any

import pytest
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.tasks import Task, decode
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.documents import Document
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.outbox import writer
from ftgo_messaging.transports.port import Record

REPLIES = Channel("envelope.replies", Kind.REPLY)
COMMANDS = Channel("envelope.commands", Kind.COMMAND, key=lambda c: c.about)
EVENTS = Channel("envelope.events", Kind.EVENT)
KEYED_EVENTS = Channel("envelope.keyed-events", Kind.EVENT, key=lambda e: e.about)
DOCUMENTS = Channel("envelope.documents", Kind.DOCUMENT, key=lambda d: d.about)
HANDLERS = MessageHandlers("envelope")


@COMMANDS.carries("envelope.Do", replies_to=(REPLIES,))
class Do(Command[Success], frozen=True, kw_only=True):
    about: str


@EVENTS.carries("envelope.Done")
class Done(DomainEvent, frozen=True, kw_only=True):
    about: str


@KEYED_EVENTS.carries("envelope.KeyedDone")
class KeyedDone(DomainEvent, frozen=True, kw_only=True):
    about: str


@DOCUMENTS.carries("envelope.List")
class List(Document, frozen=True, kw_only=True):
    about: str


for kind in (Do, Done, KeyedDone, List, Success):

    @HANDLERS.handle(kind)
    async def handle(body: Any, uow: Any) -> None:
        return None


DO = writer.command_message(Do(about="a"), new_id(), "test", None, REPLIES, "Saga", "s-1")
REPLY = writer.reply_message(Success(), new_id(), "test", DO)
ANSWER = writer.reply_message(
    Success(), new_id(), "test", replace(DO, headers={n: v for n, v in DO.headers.items() if n != m.SAGA_ID})
)
DONE = writer.event_message(Done(about="b"), new_id(), "test", None, "a", 3)
KEYED_DONE = writer.event_message(KeyedDone(about="a"), new_id(), "test", None, "a", 3)
LIST = writer.document_message(List(about="a"), new_id(), "test", None)
ALL = {"command": DO, "reply": REPLY, "answer": ANSWER, "event": DONE, "keyed event": KEYED_DONE, "document": LIST}


def received(message: Message | None, **changes: Any) -> Record:
    assert message is not None
    headers = dict(message.headers) | changes.pop("headers", {})
    pairs = [(n, v.encode()) for n, v in headers.items() if v is not None]
    return replace(
        Record(message.channel, message.key.encode(), pairs, message.body, f"{message.channel}/0@0"), **changes
    )


def decoded(record: Record) -> Task:
    task = decode(record, HANDLERS)
    assert task is not None
    return task


@pytest.mark.parametrize("message", ALL.values(), ids=ALL)
def test_what_the_writer_makes_is_believed(message: Message) -> None:
    task = decoded(received(message))
    assert task.error == ""
    assert task.message == message


@pytest.mark.parametrize("message", ALL.values(), ids=ALL)
@pytest.mark.parametrize("key", [None, b"", b"somebody else", b"\xff"], ids=["missing", "empty", "wrong", "no text"])
def test_a_key_that_is_not_the_messages_own_is_not_believed(message: Message, key: bytes | None) -> None:
    task = decoded(received(message, key=key))
    assert "key" in task.error
    assert (task.claims, task.key) == (None, None)


@pytest.mark.parametrize("message", ALL.values(), ids=ALL)
def test_a_type_belongs_to_its_channel(message: Message) -> None:
    for other in {COMMANDS.name, EVENTS.name, REPLIES.name, "nobody's"} - {message.channel}:
        task = decoded(received(message, channel=other))
        assert "is no type of the channel" in task.error
        assert (task.claims, task.key) == (None, None)


def test_an_event_needs_its_subject_which_is_its_key_and_its_bodys() -> None:
    assert "the key is" in decoded(received(DONE, headers={m.SUBJECT: None})).error
    assert "the key is" in decoded(received(DONE, headers={m.SUBJECT: "b"})).error
    assert "the key is" in decoded(received(KEYED_DONE, body=b'{"about": "b"}')).error


@pytest.mark.parametrize("sequence", [None, "", "0", "-1", "1.0", " 1", "01", "1_0", "٣", "2147483647", "1" * 5000])
def test_a_sequence_is_a_plain_number(sequence: str | None) -> None:
    task = decoded(received(DONE, headers={m.SEQUENCE: sequence}))
    assert m.SEQUENCE in task.error
    assert task.claims is None


@pytest.mark.parametrize(
    "name",
    [m.SOURCE, m.SUBJECT, m.CORRELATION_ID, m.CAUSATION_ID, m.SAGA_ID, m.SAGA_TYPE, m.REPLY_CHANNEL, m.IN_REPLY_TO],
)
@pytest.mark.parametrize("value", ["x" * 201, "x" * 600_000, "a\x00b", "line\nfeed", "\x1b[2J"])
def test_what_would_be_copied_on_is_bounded(name: str, value: str) -> None:
    task = decoded(received(DO, headers={name: value}))
    assert name in task.error
    assert len(task.error) < 1000
    assert (task.claims, task.key) == (None, None)


def test_what_is_no_text_is_said_to_be_none() -> None:
    for record in (received(DO, key=b"\xff"), replace(received(DO), headers=[(m.ID, b"\xff")])):
        assert decoded(record).error.startswith("headers or key are not UTF-8")


def test_what_reaches_the_bound_is_within_it() -> None:
    assert decoded(received(DO, headers={m.SOURCE: "x" * m.LONGEST_HEADER})).error == ""


@pytest.mark.parametrize(
    "text", [None, "", "7", "x" * 36, new_id().upper(), new_id().replace("-", ""), f"{{{new_id()}}}"]
)
def test_an_id_is_a_uuid_in_the_one_form_in_which_the_database_gives_it_back(text: str | None) -> None:
    task = decoded(received(DO, headers={m.ID: text}))
    assert "not a UUID" in task.error
    assert (task.claims, task.key) == (None, None)


def test_a_trace_that_is_none_is_left_out() -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    kept = decoded(received(DO, headers={m.TRACEPARENT: parent, m.TRACESTATE: "x=1"})).message
    assert kept is not None
    assert (kept.headers[m.TRACEPARENT], kept.headers[m.TRACESTATE]) == (parent, "x=1")
    for headers in ({m.TRACEPARENT: "x" * 600_000, m.TRACESTATE: "x=1"}, {m.TRACESTATE: "x=1"}):
        message = decoded(received(DO, headers=headers)).message
        assert message is not None
        assert not {m.TRACEPARENT, m.TRACESTATE} & message.headers.keys()
    long = decoded(received(DO, headers={m.TRACEPARENT: parent, m.TRACESTATE: "x" * 600_000})).message
    assert long is not None
    assert m.TRACEPARENT in long.headers
    assert m.TRACESTATE not in long.headers


def test_a_body_that_is_nested_without_end_is_a_dead_letter() -> None:
    task = decoded(received(DO, body=b'{"about": "a", "more": ' + b"[" * 400_000))
    assert "not a Do" in task.error


def test_a_bug_in_a_rule_is_the_dead_letter_of_its_message() -> None:
    task = decoded(received(replace(DO, body=codec.encode({"about": "a"})), channel=COMMANDS.name))
    assert task.error == ""
    broken = Channel("envelope.broken", Kind.COMMAND, key=lambda c: c.no_such_field)
    broken.carries("envelope.Do", replies_to=(REPLIES,))(Do)
    try:
        assert "no_such_field" in decoded(received(DO, channel=broken.name)).error
    finally:
        COMMANDS.carries("envelope.Do", replies_to=(REPLIES,))(Do)


def test_a_forged_return_address_is_a_dead_letter() -> None:
    assert decoded(received(DO, headers={m.REPLY_CHANNEL: REPLIES.name})).error == ""
    assert "may not be answered to" in decoded(received(DO, headers={m.REPLY_CHANNEL: EVENTS.name})).error


def test_a_type_that_nobody_here_handles_is_ignored() -> None:
    assert decode(received(DO), MessageHandlers("nobody")) is None
