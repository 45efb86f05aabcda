"""Who publishes which shards: leases in the database, renewed by short statements, ended by the database's clock.

Not a session's advisory lock: poolers hand sessions around, and a dead session holds its lock until TCP notices.
"""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import text

from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.runtime.connection import Connection

# The database's clock decides, so that hosts need not agree on the time. Taking over raises the epoch. Rows that
# another relay holds are left out beforehand, so that a standby's question locks nothing. In the order of the shards:
# two relays that ask at once cannot deadlock.
_HOLD = text(
    "INSERT INTO relay_lease AS l (shard, owner, epoch, expires_at, generation) "
    "SELECT s, :owner, 1, now() + make_interval(secs => :ttl), coalesce(CAST(:generation AS bigint), 0) "
    "FROM unnest(CAST(:shards AS smallint[])) AS s "
    "WHERE NOT EXISTS (SELECT 1 FROM relay_lease o WHERE o.shard = s AND o.owner <> :owner AND o.expires_at >= now()) "
    "ORDER BY s ON CONFLICT (shard) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at, "
    "epoch = CASE WHEN l.owner = excluded.owner THEN l.epoch ELSE l.epoch + 1 END, "
    "generation = greatest(l.generation, excluded.generation) "
    "WHERE (l.owner = excluded.owner OR l.expires_at < now()) "
    "AND (CAST(:generation AS bigint) IS NULL OR l.generation <= CAST(:generation AS bigint)) RETURNING shard, epoch"
)
_RELEASE = text("UPDATE relay_lease SET expires_at = now() WHERE owner = :owner AND expires_at > now()")


class Lease:
    """The shards that one relay holds, out of those it wants. Shards that others hold it gets when theirs end.

    ``held`` maps each shard to its epoch. Counted on this machine from before the question to the database, the
    lease ends earlier here than there: who is ``sure`` may send.

    ``generation`` numbers the configuration of brokers by which this relay publishes. It is written into the rows with
    the next ``hold``, before which nobody is ``sure``, and from then on no relay of a smaller one gets them: one that
    has not heard of a move can send nothing to the old broker any more. None, of a relay whose broker is fixed: there
    is no such fence."""

    generation: int | None = None

    def __init__(self, shards: Sequence[int], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.owner = new_id()
        self.held: dict[int, int] = {}
        self.seconds = seconds
        self._wanted = sorted(shards)
        self._clock = clock
        self._asked = self._never = -seconds
        self._asked_as: int | None = None

    @property
    def sure(self) -> bool:
        """Whether it is certain that nobody else may publish these shards now, with a tenth of the lease to spare.

        Asked between finding rows and sending them: a process that was paused in between for longer sends nothing."""
        known = self.held and self._asked_as == self.generation
        return bool(known) and self._clock() < self._asked + self.seconds * 0.9

    @property
    def stands_by(self) -> bool:
        """Whether the last answer was that others hold all the shards."""
        return not self.held and self._asked_as == self.generation and self._asked > self._never

    @property
    def renew_in(self) -> float:
        """Seconds until the lease should be asked for again, 0 when it is due: after a third of its time, or after a
        second at most while shards are missing."""
        if self._asked_as != self.generation:
            return 0.0
        after = self.seconds / 3 if len(self.held) == len(self._wanted) else min(self.seconds / 3, 1.0)
        return max(0.0, self._asked + after - self._clock())

    async def hold(self, connection: Connection) -> bool:
        """Take or renew what can be had, if that is due. Returns whether this relay holds any shard."""
        if self.renew_in > 0:
            return bool(self.held)
        asked, generation = self._clock(), self.generation
        parameters = {"owner": self.owner, "ttl": self.seconds, "shards": self._wanted, "generation": generation}
        self.held = {row[0]: row[1] for row in await connection.execute(_HOLD, parameters)}
        self._asked = asked
        self._asked_as = generation
        return bool(self.held)

    def forget(self) -> None:
        """Ask again before anything else is done."""
        self.held = {}
        self._asked = self._never

    async def release(self, connection: Connection) -> None:
        """Let a successor begin at once."""
        self.forget()
        await connection.execute(_RELEASE, {"owner": self.owner})
