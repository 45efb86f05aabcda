"""What a handler's end means for the one who asked."""

import json
from typing import Any

import pytest
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.tasks import Task, decode
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.replies import Failure, Reply, Success
from ftgo_messaging.runtime.errors import DomainError
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record

REPLIES = Channel("tasks.replies", Kind.REPLY)
COMMANDS = Channel("tasks.commands", Kind.COMMAND, key=lambda c: c.about)
EVENTS = Channel("tasks.events", Kind.EVENT, key=lambda e: e.about)


@COMMANDS.carries("tasks.Do", replies_to=(REPLIES,))
class Do(Command[Success], frozen=True, kw_only=True):
    about: str


@EVENTS.carries("tasks.Done", replies_to=(REPLIES,))
class Done(DomainEvent, frozen=True, kw_only=True):
    about: str


class NotToday(DomainError):
    slug = "not-today"


class Detailed(DomainError):
    slug = "detailed"
    reply = Failure(reason="IN_DETAIL")


async def answers(kind: type, outcome: Reply | DomainError | None, **headers: str) -> list[Any]:
    """To a message of this kind, whose handler ends so."""
    handlers = MessageHandlers("tasks")

    async def handle(body: Any, uow: UnitOfWork) -> Reply | None:
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    handlers.handle(kind)(handle)
    every = {
        m.ID: new_id(),
        m.TYPE: f"tasks.{kind.__name__}",
        m.SOURCE: "t",
        m.SUBJECT: "a",
        m.SEQUENCE: "1",
        **headers,
    }
    channel = COMMANDS if kind is Do else EVENTS
    pairs = [(name, value.encode()) for name, value in every.items()]
    task = decode(
        Record(channel.name, b"a", pairs, json.dumps({"about": "a"}).encode(), f"{channel.name}/0@0"), handlers
    )
    assert task is not None
    assert task.error == ""
    memory, operation = Memory(), task.operation()
    await memory.run(operation.run, operation.cause)
    assert {(x.channel, x.headers[m.IN_REPLY_TO]) for x in memory.messages} <= {(REPLIES.name, every[m.ID])}
    return memory.sent()


ASKED = {m.REPLY_CHANNEL: REPLIES.name}


async def test_a_command_is_answered_always_and_an_event_by_those_who_have_something_to_say() -> None:
    own = Failure(reason="MINE")
    assert await answers(Do, None, **ASKED) == [Success()]
    assert await answers(Do, own, **ASKED) == [own]
    assert await answers(Done, None, **ASKED) == []
    assert await answers(Done, own, **ASKED) == [own]


async def test_who_did_not_ask_gets_no_answer() -> None:
    for outcome in (None, Success(), NotToday()):
        assert await answers(Do, outcome) == []


async def test_a_refusal_is_answered_by_its_own_reply_or_by_its_name() -> None:
    assert await answers(Do, NotToday(), **ASKED) == [Failure(reason="NOT_TODAY")]
    assert await answers(Do, Detailed(), **ASKED) == [Failure(reason="IN_DETAIL")]


def test_what_is_no_message_has_nothing_to_run() -> None:
    with pytest.raises(ValueError, match="nothing to run"):
        Task(Record(COMMANDS.name, None, [], None, f"{COMMANDS.name}/0@0")).operation()
