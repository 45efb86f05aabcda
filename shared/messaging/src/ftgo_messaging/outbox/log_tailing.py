"""Transaction log tailing: rows come from PostgreSQL's log as they commit, without asking; the table stays the truth.

The log is the fast way to find rows, in commit order. Whenever the two may differ (at a start, after a lost slot, after
new shards, after a message that could not be published) the relay *sweeps*: the polling publisher works through the
table, while the stream is read only to know what it would have brought. It tails again when both agree.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.connection import Connection, connect
from ftgo_messaging.loops import backoff, repeat, tell_failure
from ftgo_messaging.message import Message
from ftgo_messaging.outbox.delivery import LeaseLost, Row
from ftgo_messaging.outbox.log_stream import LogStream, StreamBroken
from ftgo_messaging.outbox.pgoutput import Begin, Commit, Event, Insert, Relation, lsn_of
from ftgo_messaging.outbox.polling import BACKLOG, PollingPublisher, rest_after
from ftgo_messaging.outbox.relay import Publisher, RelayStatus, WakeUp
from ftgo_messaging.outbox.slot import Slot
from ftgo_messaging.outbox.table import PUBLICATION

log = structlog.get_logger("ftgo.relay")

CONFIRM_SECONDS = 1.0
"""How often the position is kept and the server told. After a crash so much of the log is published again."""

LOOK_SECONDS = 10.0
"""How often the slot is measured, and the table looked at for rows that the stream has missed."""

_COLUMNS = ("position", "shard", "message_id", "channel", "key", "headers", "body")
_headers_of = msgspec.json.Decoder(dict[str, str])
_END_OF_LOG = text("SELECT CAST(pg_current_wal_flush_lsn() AS text)")
_WRITTEN_LOG = text("SELECT CAST(pg_current_wal_insert_lsn() AS text)")
# The stream names transactions by 32 bits, the server knows 64: the nearest one below the next is meant.
_VISIBLE = text(
    "SELECT x FROM unnest(CAST(:xids AS bigint[])) AS x, pg_current_snapshot() AS s, "
    "CAST(CAST(pg_snapshot_xmax(s) AS text) AS bigint) AS n "
    "WHERE pg_visible_in_snapshot(CAST(CAST(n - ((n - x) & 4294967295) AS text) AS xid8), s)"
)
_OLDEST = text("SELECT min(position) FROM outbox WHERE shard = ANY(CAST(:shards AS smallint[]))")


class LogTailing:
    """One tailing relay for the shards ``index, index + of, ...``, with a slot of its own.

    Order per key: that of the commits. At least once: after a crash the last second of the log is published again."""

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
    ) -> None:
        self._sweeper = PollingPublisher(
            engine, publisher, wake_up, batch=batch, lease_seconds=lease_seconds, index=index, of=of
        )
        self.lease = self._sweeper.lease
        self.delivery = self._sweeper.delivery
        self.slot = Slot(service, index, of)
        self._engine = engine
        self._batch = batch
        self._interval = interval
        self._wake_up = wake_up
        self._stream: LogStream | None = None
        self._opening: asyncio.Task[LogStream] | None = None
        self._open_after = 0.0
        self._failed_to_open = 0
        self._stopping = False
        self._forget()

    def _forget(self) -> None:
        """What is true before the stream is open."""
        self.sweeping = True
        self._shards: set[int] = set()
        self._columns: dict[int, list[int]] = {}
        self._in_transaction = False
        self._done = 0  # end of the last transaction that is published, or left to the sweep
        self._kept = 0
        self._kept_at = self._looked_at = time.monotonic()
        self._oldest: int | None = None
        # Positions that the sweep has published and the stream has not shown yet; those (with their transaction) that
        # the stream has shown and the sweep has yet to publish: the log has a row a moment before a SELECT sees it.
        self._swept: set[int] = set()
        self._swept_until = self._sweep_at_least_to = 0
        self._owed: dict[int, int] = {}
        # Published rows, with their transaction, that the delete may have come too early for: the log had them before
        # a statement could see them.
        self._undeleted: dict[int, tuple[Row, int]] = {}
        self._xid = 0

    @property
    def status(self) -> RelayStatus:
        return self.delivery.status

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until stopped or cancelled; then keep the position and give the lease back."""

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
            end = lsn_of((await connection.execute(_END_OF_LOG))[0][0])
        async with asyncio.timeout(30):
            while True:
                if published := await self._round(0.0):
                    return published
                if self._stream is None or (self.sweeping and self.delivery.stopped):
                    return 0  # a standby; or the table has been asked
                if not self.sweeping and not self._in_transaction and self._stream.position >= end:
                    return 0
                self._stream.ask()
                await asyncio.sleep(0.002)

    async def release(self) -> None:
        """Keep the position and give the lease back, if the database answers. Otherwise the lease ends by itself."""
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
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._stream is not None:
            self._stream.close()
        self._opening = self._stream = None
        self._forget()

    async def _round(self, patience: float) -> int:
        """Find some rows, publish and delete them; wait up to ``patience`` seconds for the first. Whatever goes wrong,
        the next round begins with a sweep, and with a new stream unless that is sound."""
        try:
            if not self._shards or self.lease.renew_in == 0 or self._is_due():
                async with connect(self._engine) as connection:
                    await self.lease.hold(connection)
                    self.status.holds(len(self.lease.held))
                    if self.lease.held:
                        self._take_shards()
                        await self._look(connection)
            if not self.lease.held:
                await self._close()
                await asyncio.sleep(min(patience, self.lease.renew_in))
                return 0
            stream = self._stream or await self._try_to_open()
            if self._undeleted:
                await self._delete_again()
                patience = min(patience, 0.01)
            if stream is None or self.sweeping:
                return await self._sweep(stream, patience)
            events = await stream.read(self._batch, min(patience, self.lease.renew_in))
            published = await self._publish(stream, events)
            if patience and len(events) < self._batch:
                await asyncio.sleep(rest_after(published))
            return published
        except LeaseLost as error:
            log.warning("relay.lease_lost", error=str(error))
            await self._close()
            return 0
        except (StreamBroken, asyncio.CancelledError):
            await self._close()
            raise
        except Exception:
            self.sweeping = True
            raise

    def _take_shards(self) -> None:
        """Rows of a new shard may be behind us in the log: only the table has them all."""
        held = set(self.lease.held)
        if held - self._shards:
            self.sweeping = True
        self._shards = held

    async def _try_to_open(self) -> LogStream | None:
        """The stream, or None while it is being opened: making a slot waits for every transaction that is running,
        and without REPLICATION there never will be one. The sweep publishes all the same."""
        if self._opening is None:
            if time.monotonic() < self._open_after:
                return None
            self._opening = asyncio.create_task(self._open(), name="open-stream")
        await asyncio.wait({self._opening}, timeout=0.1)
        if not self._opening.done():
            return None
        opening, self._opening = self._opening, None
        try:
            self._stream = opening.result()
            self._failed_to_open = 0
        except Exception as error:
            self._failed_to_open += 1
            self._swept.clear()  # not to grow for ever; a later stream is compared with the table first
            tell_failure("relay.stream", error, instead="polling")
            self._open_after = time.monotonic() + backoff(self._failed_to_open, longest=30.0)
        return self._stream

    async def _open(self) -> LogStream:
        async with connect(self._engine) as connection:
            await self.slot.prepare(connection)
            # Up to here a predecessor may have published and deleted without confirming: not to be repeated.
            self._sweep_at_least_to = lsn_of((await connection.execute(_END_OF_LOG))[0][0])
        stream = LogStream(self._engine, self.slot.name, PUBLICATION, self.slot.status_seconds)
        await stream.open(self.slot.start)
        self._done = self._kept = self.slot.start
        return stream

    # -- tailing ---------------------------------------------------------------------------------------------------

    async def _publish(self, stream: LogStream, events: Iterable[Event]) -> int:
        rows, shown, end = self._take_in(events)
        fresh = [row for row in rows if row.position not in self._swept]
        if len(fresh) < len(rows):
            self._swept.difference_update([row.position for row in rows])
        done: list[Row] = []
        if fresh:
            try:
                async with connect(self._engine) as connection:
                    done = await self.delivery.deliver(connection, fresh)
                if not self.delivery.all_deleted:
                    self._undeleted |= {row.position: (row, shown[row.position]) for row in done}
            finally:
                if len(done) < len(fresh):
                    # The stream is past them, the sweep publishes them when their time has come.
                    self.sweeping = True
                    left = {row.position for row in fresh} - {row.position for row in done}
                    self._owed |= {position: shown[position] for position in left}
        self.status.found = len(fresh)
        BACKLOG.set(len(fresh))
        self._advance(stream, rows, end)
        if self._swept and self._done >= self._swept_until:
            self._swept.clear()
        return len(done)

    async def _delete_again(self) -> None:
        """Delete what a delete was too early for. Once its transaction is visible, a delete has had its chance."""
        async with connect(self._engine) as connection:
            visible = await self._visible(connection, [xid for _, xid in self._undeleted.values()])
            await self.delivery.delete(connection, [row for row, _ in self._undeleted.values()])
        self._undeleted = {at: (row, xid) for at, (row, xid) in self._undeleted.items() if xid not in visible}

    def _advance(self, stream: LogStream, rows: Sequence[Row], end: int | None) -> None:
        """Only whole transactions count: the rows of one share their place in the log."""
        if end is not None:
            self._done = end
        elif not rows and not self._in_transaction:
            # Nothing is under way: what other databases write moves the position too, or their log would be kept.
            self._done = max(self._done, stream.position)

    def _take_in(self, events: Iterable[Event]) -> tuple[list[Row], dict[int, int], int | None]:
        """The rows of our shards, the transaction of each position, and the end of the last whole transaction."""
        rows: list[Row] = []
        shown: dict[int, int] = {}
        end = None
        for event in events:
            match event:
                case Insert():
                    row = self._row(event)
                    if row.shard in self._shards:
                        rows.append(row)
                        shown[row.position] = self._xid
                case Commit():
                    end, self._in_transaction = event.end_lsn, False
                case Begin():
                    self._in_transaction, self._xid = True, event.xid
                case Relation():
                    self._columns[event.id] = [event.columns.index(name) for name in _COLUMNS]
        return rows, shown, end

    def _row(self, insert: Insert) -> Row:
        values = insert.values
        position, shard, message_id, channel, key, headers, body = [
            values[i] or b"" for i in self._columns[insert.relation]
        ]
        x = message_id.hex()
        dashed = f"{x[:8]}-{x[8:12]}-{x[12:16]}-{x[16:20]}-{x[20:]}"
        message = Message(dashed, channel.decode(), key.decode(), _headers_of.decode(headers), body)
        return Row(int.from_bytes(position), int.from_bytes(shard), message)

    # -- sweeping --------------------------------------------------------------------------------------------------

    async def _sweep(self, stream: LogStream | None, patience: float) -> int:
        """A batch from the table; meanwhile the stream is only compared. Ends when the table has shown everything that
        it has, all of it is published, and the stream owes us nothing that came before."""
        visible: set[int] = set()
        if self._owed:
            async with connect(self._engine) as connection:
                visible = await self._visible(connection, self._owed.values())
        done = await self._sweeper.publish_batch()
        if not self.lease.held:
            raise LeaseLost("during a sweep")
        for row in done:
            if self._owed.pop(row.position, None) is None:
                self._swept.add(row.position)
        if complete := self.status.found < self._batch and not self.delivery.stopped:
            # That SELECT would have found them: published before, by us or by a predecessor, or deleted by hand.
            self._owed = {position: xid for position, xid in self._owed.items() if xid not in visible}
        if stream is not None and complete and not self._owed and self._done >= self._sweep_at_least_to:
            async with connect(self._engine) as connection:
                # Everything that the sweep has seen was committed before this point of the log.
                self._swept_until = lsn_of((await connection.execute(_WRITTEN_LOG))[0][0])
            self.sweeping = False
            return len(done)
        retry = self.delivery.stopped.next_attempt()
        wait = 0.0 if done else min(patience, self._interval if retry is None else max(retry, 0.01))
        if stream is None:
            await self._wake_up.wait(wait)
            return len(done)
        rows, shown, end = self._take_in(await stream.read(self._batch, min(wait, 0.01) if complete else wait))
        for position, xid in shown.items():
            if position in self._swept:
                self._swept.remove(position)
            else:
                self._owed[position] = xid
        self._advance(stream, rows, end)
        return len(done)

    async def _visible(self, connection: Connection, xids: Iterable[int]) -> set[int]:
        """Those of the transactions that every statement from now on sees."""
        return {row[0] for row in await connection.execute(_VISIBLE, {"xids": list(set(xids))})}

    # -- position and health ---------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        return self._is_to_confirm() or time.monotonic() - self._looked_at > LOOK_SECONDS

    def _is_to_confirm(self) -> bool:
        return self._done > self._kept and time.monotonic() - self._kept_at > CONFIRM_SECONDS

    async def _look(self, connection: Connection) -> None:
        if self._is_to_confirm():
            await self._confirm(connection)
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            await self.slot.look_after(connection)
            oldest = (await connection.execute(_OLDEST, {"shards": list(self._shards)}))[0][0]
            if oldest is not None and oldest == self._oldest and not self.sweeping:
                log.warning("relay.row_missed", position=oldest, repair="sweep of the outbox")
                self.sweeping = True
            self._oldest = oldest

    async def _confirm(self, connection: Connection) -> None:
        await self.slot.keep(connection, self._done)
        if self._stream is not None:
            self._stream.confirm(self._done)
        self._kept, self._kept_at = self._done, time.monotonic()
