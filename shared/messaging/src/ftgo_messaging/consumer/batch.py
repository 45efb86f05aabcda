"""One polled batch, one transaction: duplicates dropped, handlers run in order, replies and events written, commit.

When anything but a business refusal or a transient error happens, the batch rolls back and runs again message by
message, so that only the guilty one becomes a dead letter. The caller commits the offsets afterwards; a crash before
that repeats the batch, and the recorded ids absorb it.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy import text

from ftgo_messaging import codec
from ftgo_messaging import message as m
from ftgo_messaging.aggregates import Refs
from ftgo_messaging.connection import Connection
from ftgo_messaging.consumer.handlers import Handler, MessageHandlers
from ftgo_messaging.errors import DomainError, Undecodable, is_transient
from ftgo_messaging.failpoints import failpoint
from ftgo_messaging.inbox.deduplicator import claim
from ftgo_messaging.message import Message
from ftgo_messaging.outbox.writer import check_return_address
from ftgo_messaging.registry import by_name
from ftgo_messaging.replies import Failure, Reply, Success
from ftgo_messaging.transactions import Step, Transactions, run_steps
from ftgo_messaging.unit_of_work import UnitOfWork

log = structlog.get_logger("ftgo.consumer")

HANDLED = Counter("ftgo_messages_handled_total", "Messages by what became of them", ["consumer", "outcome"])

_DEAD_LETTER = text(
    "INSERT INTO dead_letters (consumer, message_id, channel, partition, position, key, headers, body, error) "
    "VALUES (:consumer, :message_id, :channel, :partition, :position, :key, CAST(:headers AS json), :body, :error)"
)


@dataclass(frozen=True, slots=True)
class Received:
    """A record as it came from the broker, nothing decoded yet."""

    channel: str
    partition: int
    position: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class _Task:
    received: Received
    message: Message
    body: Any
    handler: Handler


def _as_message(received: Received) -> Message:
    try:
        headers = {name: value.decode() for name, value in received.headers if value is not None}
        key = (received.key or b"").decode()
    except UnicodeDecodeError as error:
        raise Undecodable(f"headers or key are not UTF-8: {error}") from error
    message_id = headers.get(m.ID, "")
    if len(message_id) != 36:
        raise Undecodable(f"{m.ID} is {message_id!r}, not a UUID")
    return Message(message_id, received.channel, key, headers, received.body or b"")


class BatchProcessor:
    """Handles batches for one consumer. Effects of a message and the record of its id are one transaction."""

    def __init__(self, handlers: MessageHandlers, transactions: Transactions) -> None:
        self._handlers = handlers
        self._transactions = transactions

    async def process(self, batch: Sequence[Received]) -> None:
        """Handle the batch. Raises only transient errors: then nothing of the failing part has happened and the same
        records are to be given again."""
        tasks, undecodable = self._decode(batch)
        try:
            await self._commit(tasks, undecodable)
        except Exception as error:
            if is_transient(error):
                raise
            log.warning("batch.alone", consumer=self._handlers.consumer, size=len(batch), error=repr(error))
            for received in batch:
                await self._process_alone(received)

    async def _process_alone(self, received: Received) -> None:
        tasks, undecodable = self._decode([received])
        try:
            await self._commit(tasks, undecodable)
        except Exception as error:
            if is_transient(error):
                raise
            trace = "".join(traceback.format_exception(error))[-4000:]
            await self._commit([], [(received, trace)], claimed=[t.message.id for t in tasks])

    def _decode(self, batch: Sequence[Received]) -> tuple[list[_Task], list[tuple[Received, str]]]:
        tasks: list[_Task] = []
        undecodable: list[tuple[Received, str]] = []
        for received in batch:
            try:
                message = _as_message(received)
                kind = by_name(message.type)
                handler = self._handlers.find(message.type)
                if handler is None:  # a known type that this consumer does not care about
                    HANDLED.labels(self._handlers.consumer, "ignored").inc()
                    continue
                check_return_address(kind, message)
                tasks.append(_Task(received, message, codec.decode(message.body, kind.cls), handler))
            except Undecodable as error:
                undecodable.append((received, str(error)))
        return tasks, undecodable

    async def _commit(
        self, tasks: Sequence[_Task], dead: Sequence[tuple[Received, str]], claimed: Sequence[str] = ()
    ) -> None:
        if not tasks and not dead:
            return
        consumer = self._handlers.consumer

        async def body(uow: UnitOfWork, connection: Connection) -> int:
            ids = dict.fromkeys([t.message.id for t in tasks if t.handler.deduplicate] + list(claimed))
            new = await claim(connection, consumer, list(ids))
            failpoint("inbox.claimed")
            steps: list[Step[None]] = []
            for task in tasks:
                if task.handler.deduplicate:
                    if task.message.id not in new:
                        continue
                    new.discard(task.message.id)  # the same id twice in one batch
                steps.append(_step(task))
            await run_steps(uow, steps)
            failpoint("consumer.flushed")
            for received, error in dead:
                await connection.execute(_DEAD_LETTER, _dead_letter(consumer, received, error))
            return len(steps)

        handled = await self._transactions.run(body)
        HANDLED.labels(consumer, "handled").inc(handled)
        HANDLED.labels(consumer, "duplicate").inc(len(tasks) - handled)
        for received, error in dead:
            HANDLED.labels(consumer, "dead").inc()
            log.error(
                "message.dead",
                consumer=consumer,
                channel=received.channel,
                partition=received.partition,
                offset=received.position,
                error=error.strip().splitlines()[-1],
            )


def _step(task: _Task) -> Step[None]:
    def stage(load: Any) -> Any:
        def refs(uow: UnitOfWork) -> Refs:
            return load(task.body, task.message, uow)  # type: ignore[no-any-return]

        return refs

    async def run(uow: UnitOfWork) -> None:
        try:
            async with uow.step(task.message):
                reply = await task.handler.run(task.body, uow, task.message) or Success()
                failpoint("consumer.handled")
                if m.REPLY_CHANNEL in task.message.headers:
                    uow.reply(reply)
        except DomainError as refusal:
            if uow.touched_database:
                raise
            uow.reply(failure_of(refusal))

    return Step(run, tuple(stage(load) for load in task.handler.loads), task.message)


def failure_of(refusal: DomainError) -> Reply:
    """The failure reply for a refusal: the one that it carries, else a plain Failure with its slug as the reason."""
    reply = getattr(refusal, "reply", None)
    return reply if isinstance(reply, Reply) else Failure(reason=refusal.slug.upper().replace("-", "_"))


def _dead_letter(consumer: str, received: Received, error: str) -> Mapping[str, Any]:
    headers = [[name, value.decode(errors="replace") if value else None] for name, value in received.headers]
    message_id = next((v for n, v in headers if n == m.ID), None)
    return {
        "consumer": consumer,
        "message_id": message_id,
        "channel": received.channel,
        "partition": received.partition,
        "position": received.position,
        "key": received.key,
        "headers": msgspec.json.encode(headers).decode(),
        "body": received.body,
        "error": error,
    }
