"""Transaction log tailing: rows come from PostgreSQL's log as they commit, without asking; the table stays the truth.

The log is the fast way to find rows, in commit order. Whenever the two may differ (at a start, after a lost slot, after
new shards, after a message that could not be published) the relay *sweeps*: the polling publisher works through the
table, while the stream is read only to know what it would have brought. It tails again when both agree.
"""

import asyncio
import time

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.outbox.delivery import NOTHING, LeaseLost, Round
from ftgo_messaging.outbox.log_rows import LogRows
from ftgo_messaging.outbox.log_stream import LogStream, StreamBroken
from ftgo_messaging.outbox.moving import Moving
from ftgo_messaging.outbox.opening import Opening
from ftgo_messaging.outbox.polling import BACKLOG, PollingPublisher, rest_after
from ftgo_messaging.outbox.reconciliation import Reconciliation, end_of_log, visible, written_log
from ftgo_messaging.outbox.relay import RelayStatus, WakeUp
from ftgo_messaging.outbox.slot import Slot
from ftgo_messaging.runtime.connection import Connection, connect
from ftgo_messaging.runtime.loops import repeat
from ftgo_messaging.transports.port import Publisher

log = structlog.get_logger("ftgo.relay")

CONFIRM_SECONDS = 1.0
"""How often the LSN is kept and the server told. After a crash so much of the log is published again."""

LOOK_SECONDS = 10.0
"""How often the slot is measured, and the table looked at for rows that the stream has missed."""


class LogTailing:
    """One tailing relay for the shards ``index, index + of, ...``, with a slot of its own.

    Order per key: that of the commits. At least once: after a crash the last second of the log is published again.
    ``sweeping`` tells where the rows come from at present: from the table, or from the log alone."""

    def __init__(
        self,
        engine: AsyncEngine,
        publisher: Publisher,
        wake_up: WakeUp,
        *,
        service: str,
        batch: int = 500,
        interval: float = 1.0,
        lease_seconds: float = 10.0,
        index: int = 0,
        of: int = 1,
        moving: Moving | None = None,
    ) -> None:
        self._sweeper = PollingPublisher(
            engine, publisher, wake_up, batch=batch, lease_seconds=lease_seconds, index=index, of=of, moving=moving
        )
        self.lease = self._sweeper.lease
        self.delivery = self._sweeper.delivery
        self.slot = Slot(service, index, of)
        self._engine = engine
        self._batch = batch
        self._interval = interval
        self._wake_up = wake_up
        self._opening = Opening(engine, self.slot)
        self._stopping = False
        self._forget()

    def _forget(self) -> None:
        """What is true before the stream is open."""
        self.sweeping = True
        self._stream: LogStream | None = None
        self._log = LogRows(0)
        self._both = Reconciliation()
        self._shards: set[int] = set()
        self._kept_lsn = 0
        self._kept_at = self._looked_at = time.monotonic()

    @property
    def status(self) -> RelayStatus:
        return self.delivery.status

    async def run(self) -> None:
        """Publish until stopped or cancelled; then keep the LSN and give the lease back."""

        async def work() -> None:
            await self._round(self._interval)
            self.status.round_done()

        try:
            await repeat("relay", work, stopped=lambda: self._stopping)
        finally:
            await asyncio.shield(self.release())

    def stop(self) -> None:
        """End ``run`` after the round that is under way."""
        self._stopping = True
        self._wake_up.ring()
        if self._stream is not None:
            self._stream.interrupt()

    async def run_once(self) -> int:
        """Publish what is committed now, or a first part of it; returns how many messages were acknowledged and
        removed. 0 when nothing is left, when it waits for its next attempt, or when other relays hold all leases."""
        async with connect(self._engine) as connection:
            end = await end_of_log(connection)
        async with asyncio.timeout(30):
            while True:
                if published := (await self._round(0.0)).done:
                    return len(published)
                if self._stream is None or (self.sweeping and self.delivery.stopped):
                    return 0  # a standby; or the table has been asked
                if not self.sweeping and not self._log.in_transaction and self._stream.server_lsn >= end:
                    return 0
                self._stream.ask()
                await asyncio.sleep(0.002)

    async def release(self) -> None:
        """Keep the LSN and give the lease back, if the database answers. Otherwise the lease ends by itself."""
        try:
            async with connect(self._engine) as connection:
                if self._stream is not None and self.lease.sure:
                    await self._confirm(connection)
                await self.lease.release(connection)
        except Exception as error:
            log.info("relay.lease_not_released", error=str(error))
        finally:
            await self._close()

    async def _close(self) -> None:
        stream = self._stream
        self._forget()
        if stream is not None:
            stream.close()
        await self._opening.cancel()

    async def _round(self, patience: float) -> Round:
        """Find some rows, publish and delete them; wait up to ``patience`` seconds for the first. Whatever goes wrong,
        the next round begins with a sweep, and with a new stream unless that is sound."""
        try:
            if not self._shards or self.lease.renew_in == 0 or self._is_due():
                await self._hold_and_look()
            if not self.lease.held:
                await self._close()
                await asyncio.sleep(min(patience, self.lease.renew_in))
                return NOTHING
            stream = self._stream or await self._open()
            if self._both.undeleted:
                await self._delete_again()
                patience = min(patience, 0.01)
            return await (self._tail(stream, patience) if stream and not self.sweeping else self._sweep(patience))
        except LeaseLost as error:
            log.warning("relay.lease_lost", error=str(error))
            await self._close()
            return NOTHING
        except (StreamBroken, asyncio.CancelledError):
            await self._close()
            raise
        except Exception:
            self.sweeping = True
            raise

    async def _hold_and_look(self) -> None:
        async with connect(self._engine) as connection:
            await self.lease.hold(connection)
            self.status.holds(len(self.lease.held))
            if self.lease.held:
                self._take_shards()
                await self._look(connection)

    def _take_shards(self) -> None:
        """Rows of a new shard may be behind us in the log: only the table has them all."""
        held = set(self.lease.held)
        if held - self._shards:
            self.sweeping = True
        self._shards = held

    async def _open(self) -> LogStream | None:
        if opened := await self._opening.opened():
            self._stream = opened.stream
            self._both.sweep_to_lsn = opened.end_lsn
            self._log = LogRows(self.slot.start_lsn)
            self._kept_lsn = self.slot.start_lsn
        elif self._opening.failures:
            self._both.forget_swept()
        return self._stream

    async def _tail(self, stream: LogStream, patience: float) -> Round:
        """What the log shows next."""
        events = await stream.read(self._batch, min(patience, self.lease.renew_in))
        shown = self._log.take_in(events, self._shards)
        fresh = self._both.unpublished(shown)
        result = NOTHING
        if fresh:
            try:
                async with connect(self._engine) as connection:
                    result = await self.delivery.deliver(connection, fresh)
                if not result.all_deleted:
                    self._both.note_undeleted(result.done, shown)
            finally:
                if len(result.done) < len(fresh):
                    # The stream is past them, the sweep publishes them when their time has come.
                    self.sweeping = True
                    done = {row.position for row in result.done}
                    self._both.owe([row for row in fresh if row.position not in done], shown)
        self.status.found = result.found
        BACKLOG.set(result.found)
        self._log.advance(shown, stream.server_lsn)
        self._both.passed(self._log.done_lsn)
        if patience and len(events) < self._batch:
            await asyncio.sleep(rest_after(len(result.done)))
        return result

    async def _delete_again(self) -> None:
        async with connect(self._engine) as connection:
            seen = await visible(connection, [xid for _, xid in self._both.undeleted.values()])
            await self.delivery.delete(connection, [row for row, _ in self._both.undeleted.values()])
        self._both.deleted_again(seen)

    async def _sweep(self, patience: float) -> Round:
        """A batch from the table; meanwhile the stream is only compared. Ends when the table has shown everything that
        it has, all of it is published, and the stream owes us nothing that came before."""
        seen: set[int] = set()
        if self._both.owed:
            async with connect(self._engine) as connection:
                seen = await visible(connection, self._both.owed.values())
        left_out = bool(self.delivery.stopped)  # when the table is asked: what is held may be let go meanwhile
        result = await self._sweeper.publish_batch()
        if not self.lease.held:
            raise LeaseLost("during a sweep")
        self._both.swept(result.done)
        if complete := result.found < self._batch and not left_out and not self.delivery.stopped:
            self._both.settle(seen)
        stream = self._stream
        if stream is not None and complete and self._both.settled(self._log.done_lsn):
            async with connect(self._engine) as connection:
                self._both.end_sweep(await written_log(connection))
            self.sweeping = False
            return result
        retry = self.delivery.stopped.next_attempt()
        wait = min(patience, self._interval if retry is None else max(retry, 0.01))
        if result.done or result.found == self._batch:
            wait = 0.0
        if stream is None:
            await self._wake_up.wait(wait)
            return result
        events = await stream.read(self._batch, min(wait, 0.01) if complete else wait)
        shown = self._log.take_in(events, self._shards)
        self._both.owe(shown.rows, shown)
        self._log.advance(shown, stream.server_lsn)
        return result

    def _is_due(self) -> bool:
        return self._is_to_confirm() or time.monotonic() - self._looked_at > LOOK_SECONDS

    def _is_to_confirm(self) -> bool:
        return self._log.done_lsn > self._kept_lsn and time.monotonic() - self._kept_at > CONFIRM_SECONDS

    async def _look(self, connection: Connection) -> None:
        if self._is_to_confirm():
            await self._confirm(connection)
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            await self.slot.look_after(connection)
            missed = await self._both.missed(connection, self._shards)
            if missed is not None and not self.sweeping:
                log.warning("relay.row_missed", position=missed, repair="sweep of the outbox")
                self.sweeping = True

    async def _confirm(self, connection: Connection) -> None:
        lsn = self._log.done_lsn
        await self.slot.remember(connection, lsn)
        if self._stream is not None:
            self._stream.confirm(lsn)
        self._kept_lsn, self._kept_at = lsn, time.monotonic()
