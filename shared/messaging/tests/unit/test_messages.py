"""Messages on the wire: names, headers, bodies, and what is refused."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.registry import by_class, by_name, reply_type
from ftgo_messaging.messages.replies import Failure, Reply
from ftgo_messaging.outbox import writer
from ftgo_messaging.outbox.table import SHARDS
from ftgo_messaging.runtime.errors import DomainError, TransientError, Undecodable, is_transient
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from hypothesis import given
from hypothesis import strategies as st

REPLIES = Channel("test.replies", Kind.REPLY)
COMMANDS = Channel("test.commands", Kind.COMMAND, key=lambda c: c.order_id)
EVENTS = Channel("test.events", Kind.EVENT)
KEYED_EVENTS = Channel("test.keyed-events", Kind.EVENT, key=lambda e: e.order_id)


@reply_type("test.reply.Done")
class Done(Reply, frozen=True, kw_only=True):
    ticket_id: str


@reply_type("test.reply.Refused")
class Refused(Failure, frozen=True, kw_only=True):
    pass


@COMMANDS.carries("test.DoIt", replies_to=(REPLIES,))
class DoIt(Command[Done], frozen=True, kw_only=True):
    order_id: str
    quantity: int


@EVENTS.carries("test.ItHappened", version=2)
class ItHappened(DomainEvent, frozen=True, kw_only=True):
    order_id: str


@KEYED_EVENTS.carries("test.ItHappenedToo")
class ItHappenedToo(DomainEvent, frozen=True, kw_only=True):
    order_id: str


def command(**headers: str) -> Message:
    built = writer.command_message(DoIt(order_id="o-1", quantity=2), "c-1", "order", None, REPLIES, "Saga", "s-1")
    return Message(built.id, built.channel, built.key, {**built.headers, **headers}, built.body)


@given(order_id=st.text(), quantity=st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_a_body_survives_the_wire(order_id: str, quantity: int) -> None:
    body = DoIt(order_id=order_id, quantity=quantity)
    assert codec.decode(codec.encode(body), DoIt) == body


def test_fields_are_camel_case_and_unknown_ones_are_ignored() -> None:
    assert msgspec.json.decode(codec.encode(Done(ticket_id="t"))) == {"ticketId": "t"}
    assert codec.decode(b'{"ticketId": "t", "addedLater": 1}', Done) == Done(ticket_id="t")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"{}", b'{"orderId": 1, "quantity": 1}'])
def test_a_bad_body_is_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable):
        codec.decode(data, DoIt)


def test_an_unknown_name_is_undecodable_and_a_taken_one_is_refused() -> None:
    with pytest.raises(Undecodable, match="unknown message type"):
        by_name("test.Nobody")
    with pytest.raises(ValueError, match="belongs to"):
        reply_type("test.reply.Done")(Refused)
    with pytest.raises(LookupError):
        by_class(int)


def test_a_command_is_keyed_by_its_aggregate_and_names_its_return_address() -> None:
    built = command()
    assert (built.channel, built.key, built.type) == ("test.commands", "o-1", "test.DoIt")
    assert built.headers[m.REPLY_CHANNEL] == "test.replies"
    assert built.headers[m.CORRELATION_ID] == "c-1"


def test_a_command_and_its_reply_name_the_saga_and_the_time() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # which is left out below
    asked = command()
    reply = writer.reply_message(Done(ticket_id="t"), "r-1", "kitchen", asked)
    assert reply is not None
    for message, source, subject in ((asked, "order", "o-1"), (reply, "kitchen", "s-1")):
        assert (message.headers[m.SAGA_TYPE], message.headers[m.SAGA_ID]) == ("Saga", "s-1")
        assert (message.headers[m.SOURCE], message.headers[m.SUBJECT]) == (source, subject)
        assert before <= datetime.fromisoformat(message.headers[m.TIME]) <= datetime.now(UTC)


def test_a_command_channel_needs_a_key_rule() -> None:
    with pytest.raises(ValueError, match="key rule"):
        Channel("keyless.commands", Kind.COMMAND)


def test_a_reply_answers_its_command_on_the_sagas_key() -> None:
    reply = writer.reply_message(Done(ticket_id="t"), "r-1", "kitchen", command(traceparent="00-a-b-01"))
    assert reply is not None
    assert (reply.channel, reply.key) == ("test.replies", "s-1")
    assert reply.headers[m.IN_REPLY_TO] == reply.headers[m.CAUSATION_ID] == "c-1"
    assert reply.headers[m.OUTCOME] == "SUCCESS"
    assert reply.headers[m.TRACEPARENT] == "00-a-b-01"
    refusal = writer.reply_message(Refused(), "r-2", "kitchen", command())
    assert refusal is not None
    assert refusal.headers[m.OUTCOME] == "FAILURE"


def test_a_notification_gets_no_reply_and_a_forged_return_address_is_refused() -> None:
    notification = writer.command_message(DoIt(order_id="o", quantity=1), "c", "order", None, None, None, None)
    assert writer.reply_message(Done(ticket_id="t"), "r", "kitchen", notification) is None
    writer.check_return_address(by_class(DoIt), command())
    with pytest.raises(Undecodable, match="may not be answered"):
        writer.check_return_address(by_class(DoIt), command(**{m.REPLY_CHANNEL: "other.topic"}))


def test_an_event_carries_its_aggregates_version() -> None:
    event = writer.event_message(ItHappened(order_id="o-1"), "e-1", "order", None, "o-1", 7)
    assert (event.key, event.headers[m.SEQUENCE], event.headers[m.SCHEMA]) == ("o-1", "7", "test.ItHappened/v2")


@pytest.mark.parametrize("version", [0, -1, m.LAST_SEQUENCE + 1])
def test_an_events_version_is_one_that_its_readers_believe(version: int) -> None:
    for believed in (1, m.LAST_SEQUENCE):
        writer.event_message(ItHappened(order_id="o"), "e", "order", None, "o", believed)
    with pytest.raises(ValueError, match="is no version"):
        writer.event_message(ItHappened(order_id="o"), "e", "order", None, "o", version)


def test_an_event_is_about_its_subject() -> None:
    assert writer.event_message(ItHappenedToo(order_id="o"), "e", "order", None, "o", 1).key == "o"
    with pytest.raises(ValueError, match="the body is about 'o', and the subject is 'p'"):
        writer.event_message(ItHappenedToo(order_id="o"), "e", "order", None, "p", 1)


def test_what_belongs_to_no_channel_of_its_kind_is_not_sent() -> None:
    with pytest.raises(LookupError, match="no event channel"):
        writer.event_message(DoIt(order_id="o", quantity=1), "e", "order", None, "o", 1)  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="no document channel"):
        writer.document_message(DoIt(order_id="o", quantity=1), "d", "order", None)  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="no command channel"):
        writer.command_message(ItHappened(order_id="o"), "c", "order", None, None, None, None)  # type: ignore[arg-type]


def test_whoever_causes_a_message_is_named_in_it() -> None:
    first = writer.event_message(ItHappened(order_id="o"), "e-1", "order", None, "o", 1)
    assert first.headers[m.CORRELATION_ID] == "e-1"
    assert m.CAUSATION_ID not in first.headers
    cause = Message("x-1", "", "", {m.CORRELATION_ID: "c-0", m.TRACEPARENT: "t", m.TRACESTATE: "s"}, b"")
    headers = writer.event_message(ItHappened(order_id="o"), "e-2", "order", cause, "o", 1).headers
    names = (m.CORRELATION_ID, m.CAUSATION_ID, m.TRACEPARENT, m.TRACESTATE)
    assert [headers[name] for name in names] == ["c-0", "x-1", "t", "s"]
    request = writer.event_message(ItHappened(order_id="o"), "e-3", "order", Message("", "", "", {}, b""), "o", 1)
    assert m.CAUSATION_ID not in request.headers  # a request has no id that one could look up


async def test_a_message_that_no_broker_takes_is_refused_before_anything_is_written() -> None:
    """In the outbox it would stop its key for ever. Everything that travels counts."""
    built = command()
    headers = sum(len(name) + len(value) for name, value in built.headers.items())
    room = m.LARGEST_MESSAGE - headers - len("ö".encode())
    writer.check_size(Message(built.id, built.channel, "ö", built.headers, b"x" * room))
    with pytest.raises(writer.MessageTooLarge, match=f"test.DoIt c-1 has {m.LARGEST_MESSAGE + 1} bytes"):
        writer.check_size(Message(built.id, built.channel, "ö", built.headers, b"x" * (room + 1)))
    memory = Memory()

    async def step(uow: UnitOfWork) -> None:
        uow.send(DoIt(order_id="o", quantity=1))
        uow.send(DoIt(order_id="o" * m.LARGEST_MESSAGE, quantity=1))

    with pytest.raises(writer.MessageTooLarge):
        await memory.run(step)
    assert memory.messages == []


@given(st.text())
def test_every_key_has_a_shard(key: str) -> None:
    assert 0 <= writer.shard_of(key) < SHARDS


def test_shards_never_change() -> None:
    """Another process or release must agree on who publishes a key, or two relays would share it."""
    assert [writer.shard_of(k) for k in ("", "o-1", "o-2", "日本")] == [0, 26, 32, 12]


def test_which_errors_are_worth_another_try() -> None:
    assert is_transient(TransientError("later"))
    assert is_transient(ConnectionRefusedError())
    assert not is_transient(DomainError("no"))
    assert not is_transient(KeyError("bug"))
