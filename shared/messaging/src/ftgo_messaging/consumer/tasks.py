"""From a record of the broker to a step of a transaction: decoded, checked, with the handler of its type."""

import traceback
from dataclasses import dataclass, replace
from typing import Any

from ftgo_messaging.consumer.dead_letters import Key
from ftgo_messaging.consumer.duplicates import Claim
from ftgo_messaging.consumer.envelope import key_of, open_envelope
from ftgo_messaging.consumer.handlers import Handler, MessageHandlers
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Kind, Message, size_of_headers
from ftgo_messaging.messages.replies import Failure, Reply, Success
from ftgo_messaging.outbox.writer import check_return_address
from ftgo_messaging.runtime.errors import DomainError, Undecodable
from ftgo_messaging.runtime.failpoints import failpoint
from ftgo_messaging.transaction.aggregates import Refs
from ftgo_messaging.transaction.transactions import Operation
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A record with its handler; or with the ``error`` for which it becomes a dead letter.

    Without ``message`` nothing of the record is believed; without ``handler`` its envelope is, but not its body."""

    received: Record
    message: Message | None = None
    body: Any = None
    handler: Handler | None = None
    error: str = ""
    refusal: DomainError | None = None

    @property
    def claims(self) -> Claim | None:
        """What is to be recorded as handled. None for what was not decoded, and for what recognises a repetition
        itself."""
        if self.message is None or self.handler is None or not (self.error or self.handler.deduplicate):
            return None
        return Claim(self.message.headers[m.SOURCE], self.message.id)

    @property
    def key(self) -> Key | None:
        """Whose order it takes part in. None for what is no message of the channel, or has a key that is not its own:
        nothing may have to wait for that."""
        if self.message is None or self.received.key is None:
            return None
        return self.received.channel, self.received.key

    def refused(self, refusal: DomainError) -> "Task":
        """The same, known to end in this refusal: only the failure reply is left to do."""
        return replace(self, refusal=refusal)

    def failed(self, error: BaseException) -> "Task":
        """The same, to become a dead letter for this error."""
        return replace(self, error=trace_of(error))

    def operation(self) -> Operation[None]:
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
                async with uow.operation(message):
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

        return Operation(run, tuple(stage(load) for load in handler.needs), message)


def decode(received: Record, handlers: MessageHandlers) -> Task | None:
    """The task; None for a type of the channel that this consumer does not care about. Never raises: a record for which
    our own code has a bug would come first for ever."""
    message: Message | None = None
    try:
        if received.defect:
            return Task(received, error=received.defect)
        if size_of_headers(received.headers) > m.LARGEST_HEADERS:
            return _without_headers(received)
        kind, message = open_envelope(received)
        handler = handlers.find(kind.name)
        if handler is None:
            return None
        body = codec.decode(message.body, kind.cls)
        key = key_of(kind, message, body)
        if received.key is None or key != message.key:
            return Task(received, error=f"the key is {_shown(received.key)}; by the rule of {kind.name} it is {key!r}")
        check_return_address(kind, message)
        return Task(received, message, body, handler)
    except Undecodable as error:
        return Task(received, message, error=str(error))
    except Exception as error:
        return Task(received, message).failed(error)


def _without_headers(received: Record) -> Task:
    """As text in a dead letter they would take many times of what they take in the record."""
    error = f"its headers are too many or too large to be kept: they stand at {received.origin}"
    return Task(replace(received, headers=()), error=error)


def _shown(key: bytes | None) -> str:
    return "missing" if key is None else repr(key[:100].decode(errors="backslashreplace"))


def trace_of(error: BaseException) -> str:
    """The end of its stack trace, for the dead letter."""
    return "".join(traceback.format_exception(error))[-4000:]


def failure_of(refusal: DomainError) -> Reply:
    """The failure reply for a refusal: the one that it carries, else a plain Failure with its slug as the reason."""
    reply = getattr(refusal, "reply", None)
    return reply if isinstance(reply, Reply) else Failure(reason=refusal.slug.upper().replace("-", "_"))
