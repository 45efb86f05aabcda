"""The replication slot of a tailing relay: made, looked after, and found out when it is not what it was.

The slot's LSN is in PostgreSQL's hands and can be lost (log limit exceeded), dropped, or made again at a later one;
nothing in the stream tells. So the relay keeps the LSN in a table of its own (``relay_position``), beside the identity
of the server, and compares at each start. Whatever it finds, the rows in between are still in the outbox.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text

from ftgo_messaging.outbox.pgoutput import lsn_of
from ftgo_messaging.outbox.table import PUBLICATION
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import TransientError

log = structlog.get_logger("ftgo.relay")

GAPS = Counter("ftgo_relay_slot_gaps_total", "Slots that were found lost, gone or moved at a start", ["reason"])
RETAINED = Gauge("ftgo_relay_retained_wal_bytes", "Log that the server keeps for the slot of this relay")

_LOOK = text(
    "SELECT s.slot_name IS NOT NULL AS exists, s.active_pid, s.wal_status, s.plugin, "
    "CAST(s.confirmed_flush_lsn AS text) AS confirmed, p.lsn AS known, p.server AS known_server, "
    "CAST(c.system_identifier AS text) AS server, current_setting('wal_level') AS wal_level, "
    "CAST((SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout') AS integer) AS timeout_ms, "
    "EXISTS (SELECT 1 FROM pg_publication_tables WHERE pubname = :publication AND tablename = 'outbox') AS published "
    "FROM pg_control_system() c LEFT JOIN pg_replication_slots s ON s.slot_name = :slot "
    "AND s.database = current_database() LEFT JOIN relay_position p ON p.slot = :slot"
)
_CREATE = text("SELECT CAST(lsn AS text) FROM pg_create_logical_replication_slot(:slot, 'pgoutput')")
_DROP = text("SELECT pg_drop_replication_slot(:slot)")
_TERMINATE = text("SELECT pg_terminate_backend(:pid)")
_REMEMBER = text(
    "INSERT INTO relay_position (slot, server, lsn) VALUES (:slot, :server, :lsn) "
    "ON CONFLICT (slot) DO UPDATE SET server = excluded.server, lsn = excluded.lsn"
)
_RETAINED = text(
    "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS bigint) FROM pg_replication_slots "
    "WHERE slot_name = :slot"
)
_DROP_OTHERS = text(
    "SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active "
    "AND database = current_database() AND slot_name ~ :ours AND slot_name !~ :current"
)


class WrongServer(Exception):
    """The server is not set up for log tailing; the text says what to change."""


@dataclass(slots=True)
class Slot:
    """The slot of relay ``index`` of ``of`` of a service. Its methods take a connection outside of a transaction."""

    service: str
    index: int
    of: int
    server: str = ""
    start_lsn: int = 0
    status_seconds: float = 10.0

    @property
    def name(self) -> str:
        """Unique on the server: slots of all databases share their names."""
        return f"{self.service}_relay_{self.index}_of_{self.of}"

    async def prepare(self, connection: Connection) -> None:
        """Make the slot usable, and set ``start_lsn``, where to stream from. Only for the owner of the lease: it ends
        the connection of a deposed owner that still reads.

        Raises WrongServer when the configuration of the server forbids it."""
        found = await self._look(connection)
        if found["wal_level"] != "logical":
            raise WrongServer(
                f"log tailing needs wal_level = logical, not {found['wal_level']}: set it, or FTGO_RELAY=polling"
            )
        if not found["published"]:
            # A slot that is older than its publication cannot decode the log in between.
            raise WrongServer(f"there is no publication {PUBLICATION} of the outbox: run the migrations")
        self.server = found["server"]
        self.status_seconds = min(10.0, (found["timeout_ms"] or 30_000) / 3000)
        if found["active_pid"] is not None:
            await connection.execute(_TERMINATE, {"pid": found["active_pid"]})
            found = await self._once_inactive(connection)
        reason = _gap(found)
        if reason is not None:
            GAPS.labels(reason).inc()
            log.warning("relay.slot_gap", slot=self.name, reason=reason, repair="sweep of the outbox")
        exists = found["exists"]
        if exists and (found["wal_status"] == "lost" or found["plugin"] != "pgoutput"):
            await connection.execute(_DROP, {"slot": self.name})
            exists = False
        if exists:
            self.start_lsn = lsn_of(found["confirmed"])
            if reason is None:
                self.start_lsn = max(self.start_lsn, found["known"] or 0)
        else:
            self.start_lsn = lsn_of((await connection.execute(_CREATE, {"slot": self.name}))[0][0])
        await self.remember(connection, self.start_lsn)

    async def _look(self, connection: Connection) -> Any:
        return (await connection.execute(_LOOK, {"slot": self.name, "publication": PUBLICATION}))[0]

    async def _once_inactive(self, connection: Connection) -> Any:
        """Looked at anew: a slot that its reader was still making is gone with it."""
        for _ in range(100):
            found = await self._look(connection)
            if found["active_pid"] is None:
                return found
            await asyncio.sleep(0.05)
        raise TransientError(f"slot {self.name} is still read by the server's process {found['active_pid']}")

    async def remember(self, connection: Connection, lsn: int) -> None:
        """Remember the confirmed LSN outside of the slot. Before the server hears of it: the slot is never ahead
        of what is known here, unless another hand has moved it."""
        await connection.execute(_REMEMBER, {"slot": self.name, "server": self.server, "lsn": lsn})

    async def look_after(self, connection: Connection) -> None:
        """Measure the retained log, and drop idle slots of an earlier division into relays: they would keep the
        server's log for ever. A relay that still wants one makes it anew, and sweeps."""
        rows = await connection.execute(_RETAINED, {"slot": self.name})
        if rows and rows[0][0] is not None:
            RETAINED.set(rows[0][0])
        ours = f"^{self.service}_relay_[0-9]+_of_"
        dropped = await connection.execute(_DROP_OTHERS, {"ours": f"{ours}[0-9]+$", "current": f"{ours}{self.of}$"})
        for row in dropped:
            log.warning("relay.slot_dropped", slot=row[0], reason="of another division into relays")


def _gap(found: object) -> str | None:
    """Why the log may have a hole between what was confirmed and what the slot will send, or None."""
    row: dict[str, object] = dict(found)  # type: ignore[call-overload]
    if row["known"] is None:
        return None  # the first start
    if row["known_server"] != row["server"]:
        return "another server"
    if not row["exists"]:
        return "gone"
    if row["wal_status"] == "lost":
        return "lost"
    if lsn_of(str(row["confirmed"])) > int(str(row["known"])):
        return "moved"
    return None
