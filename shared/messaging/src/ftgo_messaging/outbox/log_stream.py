"""The transaction log as a stream: PostgreSQL's logical replication, read on the event loop.

psycopg2 speaks the replication protocol, asyncpg does not. Only connecting blocks, and that happens in a thread;
reading never does, so that no thread hands rows over and nothing is queued twice.
"""

import asyncio
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extras import LogicalReplicationConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_messaging.outbox.pgoutput import Event, decode, lsn_text
from ftgo_messaging.runtime.errors import TransientError


class StreamBroken(TransientError):
    """The replication connection is gone, or could not be made. Open a new one."""


class LogStream:
    """One replication connection on one slot. Not reading is the way to slow the server down: it waits.

    Meanwhile the confirmed LSN is reported every ``status_seconds``, which has to be well below
    ``wal_sender_timeout``, or the server takes a reader with a slow broker for dead."""

    def __init__(self, engine: AsyncEngine, slot: str, publication: str, status_seconds: float) -> None:
        # libpq calls it sslmode, asyncpg ssl; the other options of a URL are for one of the two only.
        query = {"sslmode": mode} if (mode := engine.url.query.get("sslmode", engine.url.query.get("ssl"))) else {}
        self._dsn = engine.url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)
        self._slot = slot
        self._publication = publication
        self._status_seconds = status_seconds
        self._connection: Any = None
        self._cursor: Any = None
        self._readable = asyncio.Event()
        self._confirmed = 0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, start_lsn: int) -> None:
        """Stream from there. Raises StreamBroken, also when another process still reads the slot."""
        try:
            await asyncio.to_thread(self._connect, start_lsn)
        except psycopg2.Error as error:
            self.close()
            raise StreamBroken(f"no stream from slot {self._slot}: {error}") from error
        self._confirmed = start_lsn
        self._report()

    def _connect(self, start_lsn: int) -> None:
        self._connection = psycopg2.connect(
            self._dsn,
            connection_factory=LogicalReplicationConnection,
            connect_timeout=5,
            application_name=self._slot,
            keepalives_idle=10,
        )
        self._cursor = self._connection.cursor()
        self._cursor.start_replication(
            slot_name=self._slot,
            start_lsn=lsn_text(start_lsn),
            decode=False,
            status_interval=60,  # our own timer reports, whether we read or not
            options={
                "proto_version": "1",
                "publication_names": self._publication,
                "messages": "true",
                "binary": "true",
            },
        )

    async def read(self, most: int, timeout: float) -> list[Event]:
        """Up to ``most`` events: those that are there, or else the first that arrive within ``timeout`` seconds; none
        when the time is over or ``interrupt`` was called. Raises StreamBroken when the connection is gone."""
        events = self._drain(most)
        if not events and timeout > 0:
            loop = asyncio.get_running_loop()
            self._readable.clear()
            loop.add_reader(self._connection.fileno(), self._readable.set)
            try:
                async with asyncio.timeout(timeout):
                    await self._readable.wait()
            except TimeoutError:
                pass
            finally:
                loop.remove_reader(self._connection.fileno())
            events = self._drain(most)
        return events

    def _drain(self, most: int) -> list[Event]:
        events: list[Event] = []
        try:
            while len(events) < most and (message := self._cursor.read_message()) is not None:
                if (event := decode(message.payload)) is not None:
                    events.append(event)
        except psycopg2.Error as error:
            raise StreamBroken(f"the stream from slot {self._slot} broke: {error}") from error
        return events

    @property
    def server_lsn(self) -> int:
        """How far the server has come. Once ``read`` has returned nothing, all that was committed before it has been
        read; transactions of other databases move it as well."""
        return int(self._cursor.wal_end)

    def confirm(self, lsn: int) -> None:
        """Never send again what committed before ``lsn``; the server may recycle its log up to there."""
        self._confirmed = lsn
        self.ask()

    def ask(self) -> None:
        """Report the confirmed LSN and ask for the server's, which ``read`` takes in."""
        try:
            lsn = self._confirmed
            self._cursor.send_feedback(write_lsn=lsn, flush_lsn=lsn, apply_lsn=lsn, reply=True, force=True)
        except psycopg2.Error as error:
            raise StreamBroken(f"the stream from slot {self._slot} broke: {error}") from error

    def _report(self) -> None:
        try:
            self.ask()
        except StreamBroken:
            return  # whoever reads next hears of it
        self._timer = asyncio.get_running_loop().call_later(self._status_seconds, self._report)

    def interrupt(self) -> None:
        """End a ``read`` that waits."""
        self._readable.set()

    def close(self) -> None:
        """Disconnect. The slot stays."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
