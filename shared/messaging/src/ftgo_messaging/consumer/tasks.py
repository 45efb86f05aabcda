"""From a record of the broker to a step of a transaction: decoded, checked, with the handler of its type."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from ftgo_messaging import codec
from ftgo_messaging import message as m
from ftgo_messaging.aggregates import Refs
from ftgo_messaging.consumer.handlers import Handler, MessageHandlers
from ftgo_messaging.errors import DomainError, Undecodable
from ftgo_messaging.failpoints import failpoint
from ftgo_messaging.inbox.dead_letters import Received
from ftgo_messaging.message import Kind, Message
from ftgo_messaging.outbox.writer import check_return_address
from ftgo_messaging.registry import by_name
from ftgo_messaging.replies import Failure, Reply, Success
from ftgo_messaging.transactions import Step
from ftgo_messaging.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A record with its handler; or with the ``error`` for which it becomes a dead letter."""

    received: Received
    message: Message | None = None
    body: Any = None
    handler: Handler | None = None
    error: str = ""
    refusal: DomainError | None = None

    @property
    def claims(self) -> str | None:
        """The message id to be recorded as handled; None for one that recognises a repetition itself, or has no id."""
        if self.message is None or (self.handler is not None and not self.error and not self.handler.deduplicate):
            return None
        return self.message.id

    def refused(self, refusal: DomainError) -> "Task":
        """The same, known to end in this refusal: only the failure reply is left to do."""
        return replace(self, refusal=refusal)

    def step(self) -> Step[None]:
        """What its handler does, and the reply."""
        handler, message, body = self.handler, self.message, self.body
        if handler is None or message is None:
            raise ValueError("a record that cannot be decoded has nothing to run")

        def stage(load: Any) -> Any:
            def refs(uow: UnitOfWork) -> Refs:
                return load(body, message, uow)  # type: ignore[no-any-return]

            return refs

        async def run(uow: UnitOfWork) -> None:
            if self.refusal is not None:
                uow.reply(failure_of(self.refusal))
                return
            try:
                async with uow.step(message):
                    reply = await handler.run(body, uow, message)
                    failpoint("consumer.handled")
                    if reply is None and handler.type.kind is Kind.COMMAND:
                        reply = Success()  # of an event's listeners only those answer who have something to say
                    if reply is not None and m.REPLY_CHANNEL in message.headers:
                        uow.reply(reply)
            except DomainError as refusal:
                if uow.touched_database:
                    raise
                uow.reply(failure_of(refusal))

        return Step(run, tuple(stage(load) for load in handler.loads), message)


def decode(received: Received, handlers: MessageHandlers) -> Task | None:
    """The task; None for a known type that this consumer does not care about."""
    message: Message | None = None
    try:
        message = _as_message(received)
        kind = by_name(message.type)
        handler = handlers.find(message.type)
        if handler is None:
            return None
        check_return_address(kind, message)
        return Task(received, message, codec.decode(message.body, kind.cls), handler)
    except Undecodable as error:
        return Task(received, message, error=str(error))


def _as_message(received: Received) -> Message:
    try:
        headers = {name: value.decode() for name, value in received.headers if value is not None}
        key = (received.key or b"").decode()
    except UnicodeDecodeError as error:
        raise Undecodable(f"headers or key are not UTF-8: {error}") from error
    message_id = headers.get(m.ID, "")
    if not _is_uuid(message_id):
        raise Undecodable(f"{m.ID} is {message_id!r}, not a UUID")
    return Message(message_id, received.channel, key, headers, received.body or b"")


def _is_uuid(text: str) -> bool:
    # Only in the form in which the database gives it back: another would not be found among the ids that are new.
    try:
        return len(text) == 36 and str(UUID(text)) == text
    except ValueError:
        return False


def failure_of(refusal: DomainError) -> Reply:
    """The failure reply for a refusal: the one that it carries, else a plain Failure with its slug as the reason."""
    reply = getattr(refusal, "reply", None)
    return reply if isinstance(reply, Reply) else Failure(reason=refusal.slug.upper().replace("-", "_"))
