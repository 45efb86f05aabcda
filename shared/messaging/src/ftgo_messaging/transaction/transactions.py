"""Runs operations in transactions: many operations share one, and one commit, as long as none of them breaks it.

This is what both doors of a service call: the consumer with a polled batch of messages, the HTTP side with the
requests that arrived while the previous transaction was running (group commit).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.tracing import origin
from ftgo_messaging.runtime.connection import Connection, begin
from ftgo_messaging.runtime.contained import contained
from ftgo_messaging.runtime.errors import DomainError, Overloaded, is_race, is_transient
from ftgo_messaging.runtime.failpoints import failpoint
from ftgo_messaging.runtime.loops import backoff
from ftgo_messaging.transaction.aggregates import Refs
from ftgo_messaging.transaction.unit_of_work import UnitOfWork

T = TypeVar("T")
Stage = Callable[[UnitOfWork], Refs]
AfterCommit = Callable[[UnitOfWork], None]


_MORE_RACES = 3


class MustRunAlone(Exception):
    """An operation ran statements of its own and then said no: a shared transaction cannot discard its effect alone."""

    def __init__(self, refusal: DomainError) -> None:
        super().__init__(refusal.slug)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[T]):
    """Something to do inside a transaction. ``needs`` names aggregates stage by stage, each stage seeing what the one
    before it loaded. It is only a hint: what it leaves out is loaded one by one. ``cause`` is the message that it
    handles, or by default the request that makes the operation."""

    run: Callable[[UnitOfWork], Awaitable[T]]
    needs: Sequence[Stage] = ()
    cause: Message = field(default_factory=origin)


async def run_operations(uow: UnitOfWork, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Run the operations in order and flush. Returns a result or the DomainError of each; any other error is raised."""
    for stage in range(max((len(o.needs) for o in operations), default=0)):
        await uow.load([ref for o in operations if len(o.needs) > stage for ref in o.needs[stage](uow)])
    results: list[Any] = []
    for operation in operations:
        try:
            async with uow.operation(operation.cause):
                try:
                    results.append(await operation.run(uow))
                except DomainError as refusal:
                    if uow.touched_database:
                        raise MustRunAlone(refusal) from refusal
                    raise
        except DomainError as refusal:
            results.append(refusal)
    await uow.flush()
    return results


class Transactions:
    """The transactions of one service. ``after_commit`` callbacks must not fail and must not wait: they wake others."""

    def __init__(self, engine: AsyncEngine, source: str, after_commit: list[AfterCommit] | None = None) -> None:
        self.engine = engine
        self.source = source
        self.after_commit: list[AfterCommit] = [] if after_commit is None else after_commit
        self.commits = 0

    def on(self, engine: AsyncEngine) -> "Transactions":
        """The same on another pool, with the same callbacks."""
        return Transactions(engine, self.source, self.after_commit)

    async def run(self, body: Callable[[UnitOfWork, Connection], Awaitable[T]]) -> T:
        """Run ``body`` in one transaction and commit. Nothing is visible, and no message goes out, if it raises.

        In a task of its own: whatever the body raises or cancels, this very task included, the caller meets an
        ordinary exception, or its own cancellation."""
        with contained():
            return await asyncio.create_task(self._run(body), name="transaction")

    async def _run(self, body: Callable[[UnitOfWork, Connection], Awaitable[T]]) -> T:
        with contained():  # here as well: the event loop ends with a task that raises SystemExit
            async with begin(self.engine) as connection:
                uow = UnitOfWork(connection, self.source)
                result = await body(uow, connection)
                failpoint("transaction.before_commit")
            failpoint("transaction.after_commit")
            self.commits += 1
            for callback in self.after_commit:
                callback(uow)
            return result

    async def run_operation(self, operation: Operation[T]) -> T:
        """One operation in a transaction of its own. Raises its DomainError, after a rollback."""

        async def body(uow: UnitOfWork, _: Connection) -> T:
            for stage in operation.needs:
                await uow.load(stage(uow))
            async with uow.operation(operation.cause):
                result = await operation.run(uow)
            await uow.flush()
            return result

        return await self.run(body)


class GroupCommit:
    """Concurrent requests share one transaction and one commit; a lone request waits for nobody.

    At most ``limit`` requests wait: the next one gets Overloaded at once. ``admit`` may raise it for reasons of its
    own, and must not wait. ``submit`` returns after the commit. A
    caller that goes away (client disconnect) does not cancel its operation: the transaction runs to its end."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        max_operations: int = 64,
        limit: int = 1000,
        workers: int = 2,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        self._transactions = transactions
        self._queue: asyncio.Queue[tuple[Operation[Any], asyncio.Future[Any]]] = asyncio.Queue(limit)
        self._max_operations = max_operations
        self._admit = admit
        self.busy = 0
        self._workers = workers
        self.workers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work. None of ``workers`` ends before ``stop``, whatever the operations raise."""
        names = [f"group commit {i}" for i in range(self._workers)]
        self.workers = [asyncio.create_task(self._work(), name=name) for name in names]

    async def stop(self) -> None:
        """Finish what is queued, then end."""
        await self._queue.join()
        for worker in self.workers:
            worker.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """Requests whose transaction has not begun."""
        return self._queue.qsize()

    async def submit(self, operation: Operation[T]) -> T:
        """Run an operation; returns its result after the commit, or raises what it raised."""
        self._admit()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((operation, future))
        except asyncio.QueueFull:
            raise Overloaded(f"{self._queue.maxsize} requests are waiting already") from None
        return await future

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            self.busy += 1
            while len(batch) < self._max_operations and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                failpoint("group_commit.collected")
                await self._run(batch)
            except Exception as error:  # a worker that ended here would leave all later requests waiting for ever
                for _, future in batch:
                    _settle(future, error)
            finally:
                self.busy -= 1
                for _ in batch:
                    self._queue.task_done()

    async def _run(self, batch: Sequence[tuple[Operation[Any], asyncio.Future[Any]]]) -> None:
        if len(batch) > 1:
            try:
                operations = [operation for operation, _ in batch]
                results = await self._transactions.run(lambda uow, _: run_operations(uow, operations))
            except Exception as error:
                if is_transient(error):
                    for _, future in batch:
                        _settle(future, error)
                    return
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    _settle(future, result)
                return
        # One of them broke the shared transaction, or there is only one: each gets its own.
        for operation, future in batch:
            _settle(future, await self._alone(operation))

    async def _alone(self, operation: Operation[Any]) -> Any:
        """The operation's result or its error. A row that was there already is met again: another process was faster
        with the same thing, and now it can be found. Met every time, it is a bug."""
        for repetition in range(_MORE_RACES + 1):
            try:
                return await self._transactions.run_operation(operation)
            except Exception as error:
                if repetition == _MORE_RACES or not is_race(error):
                    return error
            await asyncio.sleep(backoff(repetition + 1, first=0.02))
        return None


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
