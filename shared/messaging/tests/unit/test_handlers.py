"""Which function takes which type of message, and how it is called."""

from typing import Any

import pytest
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

EVENTS = Channel("handlers.events", Kind.EVENT)
MESSAGE = Message("i", EVENTS.name, "k", {}, b"")


@EVENTS.carries("handlers.Heard")
class Heard(DomainEvent, frozen=True, kw_only=True):
    pass


async def run(handlers: MessageHandlers) -> None:
    handler = handlers.find("handlers.Heard")
    assert handler is not None

    async def handle(uow: UnitOfWork) -> None:
        await handler.run("body", uow, MESSAGE)

    await Memory().run(handle)


async def test_the_message_is_given_to_whom_asks_for_it() -> None:
    given: list[Any] = []

    async def short(body: Any, uow: UnitOfWork) -> None:
        given.append((body,))

    async def long(body: Any, uow: UnitOfWork, message: Message) -> None:
        given.append((body, message))

    for function, with_message in ((short, False), (long, True)):
        handlers = MessageHandlers("test")
        handlers.handle(Heard, with_message=with_message)(function)
        await run(handlers)
    handlers = MessageHandlers("test")
    assert handlers.handle(Heard)(short) is short
    await run(handlers)
    assert given == [("body",), ("body", MESSAGE), ("body",)]


async def test_ids_are_recorded_and_nothing_is_loaded_unless_that_is_said() -> None:
    async def short(body: Any, uow: UnitOfWork) -> None:
        pass

    async def long(body: Any, uow: UnitOfWork, message: Message) -> None:
        pass

    by_handle, by_add, other = (MessageHandlers("test") for _ in range(3))
    by_handle.handle(Heard)(short)
    by_add.add(Heard, long)
    needs: Any = lambda body: [body]  # noqa: E731
    other.handle(Heard, needs=needs, deduplicate=False)(short)
    for handlers in (by_handle, by_add):
        found = handlers.find("handlers.Heard")
        assert found is not None
        assert (found.deduplicate, found.needs) == (True, ())
    found = other.find("handlers.Heard")
    assert found is not None
    assert not found.deduplicate
    uow: Any = None
    assert [stage("body", MESSAGE, uow) for stage in found.needs] == [["body"]]


async def test_a_type_has_one_handler_which_is_async() -> None:
    async def handle(body: Any, uow: UnitOfWork) -> None:
        pass

    handlers = MessageHandlers("test")
    assert handlers.consumer == "test"
    assert handlers.find("handlers.Heard") is None
    not_async: Any = lambda body, uow, message: None  # noqa: E731
    with pytest.raises(TypeError, match="must be an async function"):
        handlers.add(Heard, not_async)
    handlers.handle(Heard)(handle)
    with pytest.raises(ValueError, match="has a handler already"):
        handlers.handle(Heard)(handle)
