"""Rows to the broker and out of the table: what both relays do once they have found something.

Publish first, delete afterwards, and only as the owner: the lease is looked at right before the send, renewed while
the broker takes its time, and locked by the delete.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import NamedTuple

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox.lease import Lease
from ftgo_messaging.outbox.moving import Moving
from ftgo_messaging.outbox.relay import RelayStatus
from ftgo_messaging.outbox.stopped import Stopped
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.runtime.failpoints import failpoint
from ftgo_messaging.transports.port import Publisher, Sent

log = structlog.get_logger("ftgo.relay")

PUBLISHED = Counter("ftgo_outbox_published_total", "Messages that the broker confirmed")
FAILED = Counter("ftgo_outbox_publish_failures_total", "Messages whose publishing failed and is tried again")
AGE = Gauge("ftgo_outbox_oldest_age_seconds", "Age of the oldest message of the last batch when it was found")

# The lease rows are share-locked: a take-over waits for this delete, a delete after the take-over finds no epoch.
# Nobody waits for the disk: when the server crashes, the rows of its last moments come back and are published once
# more, as after any crash between publish and delete. Waiting took half of a round, and a sync away from the writers.
_DELETE = text(
    "WITH mine AS (SELECT l.shard FROM relay_lease l "
    "JOIN unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS h (shard, epoch) "
    "ON l.shard = h.shard AND l.epoch = h.epoch WHERE l.owner = :owner ORDER BY l.shard FOR SHARE OF l), "
    "gone AS (DELETE FROM outbox WHERE position = ANY(CAST(:positions AS bigint[])) "
    "AND shard IN (SELECT shard FROM mine) RETURNING 1) "
    "SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM gone), set_config('synchronous_commit', 'off', true)"
)


class Row(NamedTuple):
    """A committed row of the outbox."""

    position: int
    shard: int
    message: Message


class Round(NamedTuple):
    """What one look for rows has come to: how many were found (a full batch: there may be more), those that the broker
    has confirmed, and how many of these the delete has removed."""

    found: int = 0
    done: Sequence[Row] = ()
    deleted: int = 0

    @property
    def all_deleted(self) -> bool:
        return self.deleted == len(self.done)


NOTHING = Round()


class LeaseLost(TransientError):
    """Another relay publishes these shards now, or may do so."""


class Delivery:
    """Publishes and deletes for one relay. ``stopped`` knows the keys that have failed; ``status`` is told, and asked
    by others."""

    def __init__(self, publisher: Publisher, lease: Lease, moving: Moving | None = None) -> None:
        self.stopped = Stopped()
        self.status = RelayStatus()
        self._publisher = publisher
        self._lease = lease
        self._moving = moving
        self._turn: AbstractAsyncContextManager[object] = nullcontext() if moving is None else moving.turn

    async def deliver(self, connection: Connection, rows: Sequence[Row]) -> Round:
        """Publish the rows in this order, then delete what was confirmed. The rest stays.

        Raises LeaseLost if nobody can be sure any more who owns the shards; then nothing is deleted. During a move
        to another broker what has to wait stays, and is counted as found."""
        failpoint("relay.selected")
        async with self._turn:
            if not self._lease.sure:
                # A pause between finding and sending: another relay may have published these rows, and later ones.
                self._lease.forget()
                raise LeaseLost("paused for longer than the lease: nothing was sent")
            self._note_age(rows[0].message)
            now = rows if self._moving is None else self._but_those_that_wait(self._moving, rows)
            return (await self._deliver(connection, now) if now else NOTHING)._replace(found=len(rows))

    def _but_those_that_wait(self, moving: Moving, rows: Sequence[Row]) -> Sequence[Row]:
        moving.entitle()
        waiting = {row.position for row in rows if moving.waits(row.message)}
        self.stopped.hold((r.message.channel, r.message.key) for r in rows if r.position in waiting)
        return [row for row in rows if row.position not in waiting]

    async def _deliver(self, connection: Connection, rows: Sequence[Row]) -> Round:
        sent = await self._publish(connection, [r.message for r in rows])
        failpoint("relay.published")
        done, failed = _in_order(rows, sent)
        FAILED.inc(len(failed))
        deleted = await self.delete(connection, done) if done else 0
        self.stopped.note(
            failed=[(r.message.channel, r.message.key) for r in failed],
            passed=[(r.message.channel, r.message.key) for r in done] if self.stopped else (),
        )
        self.status.stopped_keys = len(self.stopped)
        return Round(len(rows), done, deleted)

    def _note_age(self, oldest: Message) -> None:
        try:
            made = datetime.fromisoformat(oldest.headers[m.TIME]).timestamp()
        except (KeyError, ValueError):
            return
        self.status.oldest_age = max(0.0, time.time() - made)
        AGE.set(self.status.oldest_age)

    async def _publish(self, connection: Connection, messages: Sequence[Message]) -> Sequence[Sent]:
        """Publish, and renew the lease meanwhile. A lost lease cuts the publishing off: what is still in the
        producer must not arrive behind newer messages of the new owner."""
        publishing = asyncio.ensure_future(self._publisher.publish(messages))
        try:
            while not (await asyncio.wait({publishing}, timeout=max(0.05, self._lease.renew_in)))[0]:
                await self._renew(connection)
            return publishing.result()
        finally:
            if not publishing.done():
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)

    async def _renew(self, connection: Connection) -> None:
        before = self._lease.held
        try:
            await self._lease.hold(connection)
        except Exception as error:
            if not self._lease.sure:
                raise LeaseLost(f"the lease could not be renewed: {error}") from error
            return
        if any(self._lease.held.get(shard) != epoch for shard, epoch in before.items()):
            self._lease.forget()
            raise LeaseLost("another relay took over while this one was publishing")

    async def delete(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Delete published rows, as the owner; returns how many there were. Raises LeaseLost."""
        shards = {r.shard for r in rows}
        held = {shard: epoch for shard, epoch in self._lease.held.items() if shard in shards}
        parameters = {
            "owner": self._lease.owner,
            "shards": list(held),
            "epochs": list(held.values()),
            "positions": [r.position for r in rows],
        }
        mine, gone, _ = (await connection.execute(_DELETE, parameters))[0]
        failpoint("relay.deleted")
        PUBLISHED.inc(gone)
        self.status.published += gone
        if mine < len(shards):
            # Another relay took over while this one was publishing. It publishes the rest again, with the same ids.
            self._lease.forget()
            raise LeaseLost(f"another relay took over {len(shards) - mine} shards: its rows were not deleted")
        return int(gone)


def _in_order(rows: Sequence[Row], sent: Sequence[Sent]) -> tuple[list[Row], list[Row]]:
    """The rows that are done, and those that are to be sent once more: all that were not confirmed, and what came
    behind one of these in its key. It may have arrived: sent again after that one, the last occurrences are in order,
    and the receiver drops the repeated id."""
    done: list[Row] = []
    failed: list[Row] = []
    blocked: set[tuple[str, str]] = set()
    for row, how in zip(rows, sent, strict=True):
        key = (row.message.channel, row.message.key)
        if how is not Sent.CONFIRMED:
            blocked.add(key)
        (failed if key in blocked else done).append(row)
    return done, failed
