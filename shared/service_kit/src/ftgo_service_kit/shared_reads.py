"""One read for all who ask at the same time: what a thousand clients wait for is read once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog
from ftgo_messaging.runtime.errors import is_transient

log = structlog.get_logger("ftgo.reads")

Q = TypeVar("Q")
A = TypeVar("A")


class SharedReads(Generic[Q, A]):
    """``read`` gets the questions of all who ask meanwhile, each once, and returns the answers that there are.

    One read at a time, on one connection. An answer is never older than its question: who asks while a read is under
    way gets the next one. A caller that goes away cancels nothing."""

    def __init__(self, read: Callable[[Sequence[Q]], Awaitable[Mapping[Q, A]]]) -> None:
        self._read = read
        self._asked: dict[Q, asyncio.Future[A | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A | None:
        """The answer, or None when there is none. Raises what the read raised; a bug in it is in the log once."""
        future = self._asked.get(question)
        if future is None:
            future = self._asked[question] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_all(), name="shared read")
        try:
            return await asyncio.shield(future)
        except Exception as error:
            # Every caller raises the same object: without this its trace grows with each of them.
            raise error.with_traceback(None)  # noqa: B904 - it is the error itself

    async def _read_all(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    answers = await self._read(list(asked))
                except Exception as error:
                    if not is_transient(error):
                        log.error("reads.failed", exc_info=error)
                    for future in asked.values():
                        future.set_exception(error)
                        future.exception()  # all who asked may have gone
                else:
                    for question, future in asked.items():
                        future.set_result(answers.get(question))
        finally:
            self._reading = None
