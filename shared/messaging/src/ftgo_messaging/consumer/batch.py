"""One polled batch, one transaction: duplicates dropped, handlers run in order, replies and events written, commit.

When anything but a business refusal or a transient error happens, the batch rolls back and runs again in halves, and
these again, so that only the guilty message becomes a dead letter. The caller commits the offsets afterwards; a crash
before that repeats the batch, and the recorded ids absorb it.

What a dead letter means for the later messages of its key is decided per channel: they wait behind it, or go on. As
long as nothing waits, that costs nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

import structlog
from prometheus_client import Counter

from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.dead_letters import Key
from ftgo_messaging.consumer.duplicates import Claim, claim, claim_and_look
from ftgo_messaging.consumer.fence import Fence
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.letter import State
from ftgo_messaging.consumer.plan import Plan, parks, plan
from ftgo_messaging.consumer.tasks import Task, decode
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import is_race, is_time_limit, is_transient
from ftgo_messaging.runtime.failpoints import failpoint
from ftgo_messaging.runtime.loops import backoff
from ftgo_messaging.transaction.transactions import MustRunAlone, Transactions, run_operations
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.port import Record

log = structlog.get_logger("ftgo.consumer")

HANDLED = Counter("ftgo_messages_handled_total", "Messages by what became of them", ["consumer", "outcome"])

_MORE_RACES = 3


class BatchProcessor:
    """Handles batches for one consumer. Effects of a message and the record of its id are one transaction.

    ``parking`` names the channels on which later messages of a key wait behind its dead letter."""

    def __init__(
        self, handlers: MessageHandlers, transactions: Transactions, parking: Collection[str] = frozenset()
    ) -> None:
        self.handlers = handlers
        self.transactions = transactions
        self._consumer = handlers.consumer
        self._parking = frozenset(parking)
        self._fence: Fence | None = None

    async def process(self, batch: Sequence[Record], *, last_attempt: bool = False, fence: Fence | None = None) -> None:
        """Handle the batch. Raises only transient errors: then nothing of the failing part has happened and the same
        records are to be given again. With ``last_attempt`` a message whose statement takes too long is not to be given
        again: it becomes a dead letter. One batch at a time. ``fence`` begins each transaction."""
        self._fence = fence
        decoded = [decode(received, self.handlers) for received in batch]
        tasks = [task for task in decoded if task is not None]
        HANDLED.labels(self._consumer, "ignored").inc(len(decoded) - len(tasks))
        try:
            await self._process(tasks)
        except Exception as error:
            if not (last_attempt and is_time_limit(error) and len(tasks) == 1):
                raise
            await self._dead_letter(tasks[0].failed(error))

    async def _process(self, tasks: Sequence[Task]) -> None:
        """All in one transaction. Where that is not possible, the halves, one after the other: one guilty message of
        five hundred costs the others some twenty transactions, not five hundred. What fails in a transaction of its
        own is tried once more before it is a dead letter."""
        try:
            await self._commit(tasks)
        except Exception as error:
            if is_transient(error):
                raise
            log.warning("batch.failed", consumer=self._consumer, size=len(tasks), error=repr(error))
            if len(tasks) == 1:
                await self._process_alone(tasks[0])
            else:
                half = len(tasks) // 2
                await self._process(tasks[:half])
                await self._process(tasks[half:])

    async def _process_alone(self, task: Task) -> None:
        if not task.error:
            error = await tried(lambda: self._commit([task]))
            if isinstance(error, MustRunAlone):
                # Its own statements are rolled back by now; its refusal still is the answer.
                refused = task.refused(error.refusal)
                error = await tried(lambda: self._commit([refused]))
            if error is None:
                return
            task = task.failed(error)
        await self._dead_letter(task)

    async def _dead_letter(self, task: Task) -> None:
        """Make a dead letter of it, whole. Where not even that can be done, which would be a bug of ours, without what
        may be the reason: a record that can be neither handled nor kept would come first for ever."""
        error = await tried(lambda: self._commit([task]))
        if error is not None:
            log.error("dead_letter.not_whole", consumer=self._consumer, exc_info=error)
            await self._commit([_bare(task, error)])

    async def _commit(self, tasks: Sequence[Task]) -> None:
        """In one transaction: run the tasks, keep those that have an error, and those whose key is parked."""
        if not tasks:
            return

        async def body(uow: UnitOfWork, connection: Connection) -> Plan:
            if self._fence is not None:
                await self._fence(connection)
            new, parked = await self._claim(connection, tasks)
            failpoint("inbox.claimed")
            decided = plan(tasks, new, parked, self._parking)
            await run_operations(uow, [task.operation() for task in decided.run])
            failpoint("consumer.flushed")
            for task, state in decided.kept:
                await dead_letters.write(
                    connection,
                    self._consumer,
                    task.received,
                    task.error or "an earlier message of this key is a dead letter",
                    state=state,
                    parks_key=parks(task, self._parking),
                    identified=task.claims is not None,
                )
            return decided

        decided = await self.transactions.run(body)
        HANDLED.labels(self._consumer, "handled").inc(len(decided.run))
        HANDLED.labels(self._consumer, "duplicate").inc(decided.duplicates)
        for task, state in decided.kept:
            self._tell(task, state)

    async def _claim(self, connection: Connection, tasks: Sequence[Task]) -> tuple[set[Claim], set[Key]]:
        """The claims that are new, and the keys that are parked."""
        claims = list(dict.fromkeys(t.claims for t in tasks if t.claims is not None))
        if not self._parking:
            return await claim(connection, self._consumer, claims), set()
        new, look = await claim_and_look(connection, self._consumer, claims)
        keys = {t.key for t in tasks if t.key is not None and parks(t, self._parking)}
        # What claims no id waits for nobody in ``claim_and_look``, so its answer may be too old.
        if not keys or not (look or any(t.claims is None for t in tasks)):
            return new, set()
        return new, await dead_letters.parked_keys(connection, self._consumer, keys)

    def _tell(self, task: Task, state: State) -> None:
        received = task.received
        HANDLED.labels(self._consumer, state.value.lower()).inc()
        level = log.error if state is State.DEAD else log.warning
        level(
            f"message.{state.value.lower()}",
            consumer=self._consumer,
            channel=received.channel,
            origin=received.origin,
            error=task.error.strip().splitlines()[-1][:500] if task.error.strip() else None,
        )


async def tried(run: Callable[[], Awaitable[None]]) -> Exception | None:
    """Run it, and some times more if a row was there already: against a transaction that was faster the next attempt
    wins, a violation that repeats itself is a bug. Returns the error that stays; raises transient ones."""
    for repetition in range(_MORE_RACES + 1):
        try:
            await run()
        except Exception as error:
            if is_transient(error):
                raise
            if repetition == _MORE_RACES or not is_race(error):
                return error
        else:
            return None
        await asyncio.sleep(backoff(repetition + 1, first=0.05))
    return None


def _bare(task: Task, error: Exception) -> Task:
    """Where the record stands, and its body; the rest is left where it is."""
    received = task.received
    why = f"Its key and headers could not be kept ({error!r}): they stand at {received.origin}.\n"
    return Task(replace(received, key=None, headers=[]), error=why + task.error)
