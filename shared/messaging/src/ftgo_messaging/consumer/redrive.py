"""Handles dead letters once more when that was ordered: in place, by the handlers of the consumer that they failed in.

Not by publishing them again: the message would arrive behind what came meanwhile, and under its old id it would be a
duplicate. Here the letter's row is the record of what has happened: it is locked, handled and resolved in one
transaction, so two workers, or two orders, have one effect. A letter that fails again is dead again.
"""

import structlog
from sqlalchemy import text

from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.batch import BatchProcessor, tried
from ftgo_messaging.consumer.letter import State
from ftgo_messaging.consumer.tasks import decode, trace_of
from ftgo_messaging.runtime.connection import Connection, connect
from ftgo_messaging.runtime.errors import DomainError, Undecodable, is_time_limit
from ftgo_messaging.runtime.loops import periodic
from ftgo_messaging.transaction.transactions import MustRunAlone, run_operations
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

log = structlog.get_logger("ftgo.consumer")

_ORDERED = text("SELECT id FROM dead_letters WHERE state = 'REDRIVE' AND consumer = :consumer ORDER BY id LIMIT 100")


class Redriver:
    """The dead letters of one consumer. Several workers may run one: each letter is handled by one of them."""

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor
        self._consumer = processor.handlers.consumer

    async def run_once(self) -> int:
        """Handle what was ordered, and what that lets follow. Returns how many letters were tried."""
        count = 0
        while ordered := await self._ordered():
            for letter_id in ordered:
                await self._redrive(letter_id)
            count += len(ordered)
        return count

    async def run(self, every: float = 2.0) -> None:
        """Look every few seconds, until cancelled. Survives outages of the database."""
        await periodic("redrive", self.run_once, every, consumer=self._consumer)

    async def _ordered(self) -> list[int]:
        async with connect(self._processor.transactions.engine) as connection:
            rows = await connection.execute(_ORDERED, {"consumer": self._consumer})
        return [row[0] for row in rows]

    async def _redrive(self, letter_id: int) -> None:
        error: Exception | None
        try:
            error = await tried(lambda: self._handle(letter_id))
            if isinstance(error, MustRunAlone):
                refusal = error.refusal
                error = await tried(lambda: self._handle(letter_id, refusal))
        except Exception as trouble:
            if not is_time_limit(trouble):
                raise
            error = trouble  # the letters behind it are not to wait
        if error is None:
            return
        trace = trace_of(error)

        async def fail_again(_: UnitOfWork, connection: Connection) -> None:
            letter = await dead_letters.take(connection, letter_id)
            if letter.state is State.REDRIVE:
                await dead_letters.failed_again(connection, letter, trace)

        await self._processor.transactions.run(fail_again)
        log.error("redrive.dead_again", consumer=self._consumer, letter=letter_id, error=repr(error))

    async def _handle(self, letter_id: int, refusal: DomainError | None = None) -> None:
        async def body(uow: UnitOfWork, connection: Connection) -> bool:
            letter = await dead_letters.take(connection, letter_id)
            if letter.state is not State.REDRIVE:
                return False  # another worker was faster
            task = decode(letter.received, self._processor.handlers)
            if task is not None:
                if task.error:
                    raise Undecodable(task.error)
                await run_operations(uow, [(task.refused(refusal) if refusal else task).operation()])
            await dead_letters.resolve(connection, letter, State.REDRIVEN)
            return True

        if await self._processor.transactions.run(body):
            log.info("redrive.done", consumer=self._consumer, letter=letter_id)
