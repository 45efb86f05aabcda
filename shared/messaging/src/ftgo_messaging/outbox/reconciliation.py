"""What the log and the table have shown of each other: the two are never read at the same moment.

The log has a row a moment before any SELECT sees it, and shows again what a sweep of the table has published. So both
sides note what the other one has yet to show, by the row's position and its transaction.
"""

from collections.abc import Collection, Iterable

from sqlalchemy import text

from ftgo_messaging.outbox.delivery import Row
from ftgo_messaging.outbox.log_rows import Shown
from ftgo_messaging.outbox.pgoutput import lsn_of
from ftgo_messaging.runtime.connection import Connection

# The stream names transactions by 32 bits, the server knows 64: the nearest one below the next is meant.
_VISIBLE = text(
    "SELECT x FROM unnest(CAST(:xids AS bigint[])) AS x, pg_current_snapshot() AS s, "
    "CAST(CAST(pg_snapshot_xmax(s) AS text) AS bigint) AS n "
    "WHERE pg_visible_in_snapshot(CAST(CAST(n - ((n - x) & 4294967295) AS text) AS xid8), s)"
)
_END_OF_LOG = text("SELECT CAST(pg_current_wal_flush_lsn() AS text)")
_OLDEST = text("SELECT min(position) FROM outbox WHERE shard = ANY(CAST(:shards AS smallint[]))")
_WRITTEN_LOG = text("SELECT CAST(pg_current_wal_insert_lsn() AS text)")


async def end_of_log(connection: Connection) -> int:
    """The LSN up to which the log is on the disk: a stream can come so far."""
    return lsn_of((await connection.execute(_END_OF_LOG))[0][0])


async def written_log(connection: Connection) -> int:
    """The LSN that nothing committed by now lies behind."""
    return lsn_of((await connection.execute(_WRITTEN_LOG))[0][0])


async def visible(connection: Connection, xids: Iterable[int]) -> set[int]:
    """Those of the transactions that every statement from now on sees."""
    return {row[0] for row in await connection.execute(_VISIBLE, {"xids": list(set(xids))})}


class Reconciliation:
    """Between one stream and the table. In memory only: a new stream begins with a sweep.

    ``sweep_to_lsn``: up to here a predecessor may have published and deleted without confirming, and the stream shows
    it once more, so that a sweep does not end before. ``owed``: rows, by position and with their transaction, that
    the log has shown and a sweep has yet to publish. ``undeleted``: published rows, with their transaction, that the
    log had before a statement could see them, so that their delete may have come too early."""

    def __init__(self) -> None:
        self.sweep_to_lsn = 0
        self.owed: dict[int, int] = {}
        self.undeleted: dict[int, tuple[Row, int]] = {}
        self._swept: set[int] = set()
        self._swept_until_lsn = 0
        self._oldest: int | None = None

    # -- while the log is followed -----------------------------------------------------------------------------------

    def unpublished(self, shown: Shown) -> list[Row]:
        """Without those that a sweep has published; the log shows each of them once."""
        fresh = [row for row in shown.rows if row.position not in self._swept]
        if len(fresh) < len(shown.rows):
            self._swept.difference_update(shown.xids)
        return fresh

    def passed(self, done_lsn: int) -> None:
        """The stream has come so far, and shows nothing older any more."""
        if self._swept and done_lsn >= self._swept_until_lsn:
            self._swept.clear()

    def note_undeleted(self, rows: Iterable[Row], shown: Shown) -> None:
        self.undeleted |= {row.position: (row, shown.xids[row.position]) for row in rows}

    def deleted_again(self, visible: Collection[int]) -> None:
        """Once its transaction was visible, a delete has had its chance."""
        self.undeleted = {at: (row, xid) for at, (row, xid) in self.undeleted.items() if xid not in visible}

    async def missed(self, connection: Connection, shards: Collection[int]) -> int | None:
        """The position of a row that was the oldest of the table at the last look too, or None. The log should have
        shown it in between."""
        before, self._oldest = self._oldest, (await connection.execute(_OLDEST, {"shards": list(shards)}))[0][0]
        return self._oldest if self._oldest == before else None

    # -- while the table is swept ------------------------------------------------------------------------------------

    def owe(self, rows: Iterable[Row], shown: Shown) -> None:
        """The log has shown them, and a sweep has yet to publish them, unless it has already."""
        for row in rows:
            if row.position in self._swept:
                self._swept.remove(row.position)
            else:
                self.owed[row.position] = shown.xids[row.position]

    def swept(self, rows: Iterable[Row]) -> None:
        """A sweep has published them."""
        for row in rows:
            if self.owed.pop(row.position, None) is None:
                self._swept.add(row.position)

    def settle(self, visible: Collection[int]) -> None:
        """The table was read to its end after these transactions were visible, and their rows would have been found:
        they were published before, by us or by a predecessor, or deleted by hand."""
        self.owed = {position: xid for position, xid in self.owed.items() if xid not in visible}

    def settled(self, done_lsn: int) -> bool:
        """Whether the log owes nothing that came before it is followed again."""
        return not self.owed and done_lsn >= self.sweep_to_lsn

    def end_sweep(self, written_lsn: int) -> None:
        """Everything that the sweep has published was committed before this LSN."""
        self._swept_until_lsn = written_lsn

    def forget_swept(self) -> None:
        """There is no stream, and may never be one: not to grow for ever. A later one is compared with the table."""
        self._swept.clear()
