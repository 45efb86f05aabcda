"""The stream of a tailing relay while it is being opened, which may take for ever."""

import asyncio
import time
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.outbox.log_stream import LogStream
from ftgo_messaging.outbox.reconciliation import end_of_log
from ftgo_messaging.outbox.slot import Slot
from ftgo_messaging.outbox.table import PUBLICATION
from ftgo_messaging.runtime.connection import connect
from ftgo_messaging.runtime.loops import backoff, tell_failure


class Opened(NamedTuple):
    """``end_lsn``: the end of the log when the slot had been prepared, and its readers before us were gone."""

    stream: LogStream
    end_lsn: int


class Opening:
    """Making a slot waits for every transaction that is running, and without REPLICATION there never will be one: so
    the stream is opened beside the rounds of the relay."""

    def __init__(self, engine: AsyncEngine, slot: Slot) -> None:
        self.failures = 0
        self._engine = engine
        self._slot = slot
        self._task: asyncio.Task[Opened] | None = None
        self._not_before = 0.0

    async def opened(self) -> Opened | None:
        """The stream, or None: ask again with the next round. Failures are told to the log, and tried again later."""
        if self._task is None:
            if time.monotonic() < self._not_before:
                return None
            self._task = asyncio.create_task(self._open(), name="open-stream")
        await asyncio.wait({self._task}, timeout=0.1)
        if not self._task.done():
            return None
        done, self._task = self._task, None
        try:
            opened = done.result()
        except (Exception, asyncio.CancelledError) as error:  # of that task: nobody has asked ours to end
            self.failures += 1
            tell_failure("relay.stream", error, instead="polling")
            self._not_before = time.monotonic() + backoff(self.failures, longest=30.0)
            return None
        self.failures = 0
        return opened

    async def _open(self) -> Opened:
        async with connect(self._engine) as connection:
            await self._slot.prepare(connection)
            end_lsn = await end_of_log(connection)
        stream = LogStream(self._engine, self._slot.name, PUBLICATION, self._slot.status_seconds)
        await stream.open(self._slot.start_lsn)
        return Opened(stream, end_lsn)

    async def cancel(self) -> None:
        """Open nothing any more. A stream that has just been opened is closed."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        for result in await asyncio.gather(task, return_exceptions=True):
            if isinstance(result, Opened):
                result.stream.close()
