"""The handlers of one logical consumer: which function takes which type of message."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.registry import MessageType, by_class
from ftgo_messaging.messages.replies import Reply
from ftgo_messaging.transaction.aggregates import Refs
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

Body = Any
Stage = Callable[[Body, Message, UnitOfWork], Refs]
Run = Callable[[Body, UnitOfWork, Message], Awaitable[Reply | None]]
F = TypeVar("F", bound=Callable[..., Awaitable[Reply | None]])


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """What to do with one type of message."""

    type: MessageType
    run: Run
    needs: tuple[Stage, ...]
    deduplicate: bool


class MessageHandlers:
    """Handlers by message type. ``consumer`` is the name under which handled ids are recorded; keep it for ever:
    under another name every message that the broker still has would take effect once more."""

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer
        self._handlers: dict[str, Handler] = {}

    def handle(
        self,
        cls: type,
        *,
        needs: Callable[[Any], Refs] | None = None,
        deduplicate: bool = True,
        with_message: bool = False,
    ) -> Callable[[F], F]:
        """Declare the handler of a type: ``async def create_ticket(command, uow) -> Reply``.

        ``needs`` names the aggregates that a body needs, so that a batch loads them together. ``deduplicate=False`` is
        for effects that recognise a repetition themselves, by the aggregate's version for instance. With
        ``with_message`` the function takes the message (headers) as its third parameter."""

        def declare(function: F) -> F:
            async def without(body: Body, uow: UnitOfWork, _: Message) -> Reply | None:
                return await function(body, uow)

            stages: tuple[Stage, ...] = () if needs is None else ((lambda body, _, __: needs(body)),)
            self.add(cls, function if with_message else without, stages, deduplicate=deduplicate)
            return function

        return declare

    def add(self, cls: type, run: Run, needs: tuple[Stage, ...] = (), *, deduplicate: bool = True) -> None:
        """The long form of ``handle``: several stages of loading, each seeing what the one before loaded."""
        kind = by_class(cls)
        if kind.name in self._handlers:
            raise ValueError(f"consumer {self.consumer}: {kind.name} has a handler already")
        if not inspect.iscoroutinefunction(run):
            raise TypeError(f"consumer {self.consumer}: the handler of {kind.name} must be an async function")
        self._handlers[kind.name] = Handler(kind, run, needs, deduplicate)

    def find(self, wire_name: str) -> Handler | None:
        return self._handlers.get(wire_name)
