"""Who reads which lanes, where the broker does not decide it: leases in the consumer's own database.

A member is alive as long as its row is there, and it renews that one row. Others delete it when its time is over, by
the database's clock; a name whose row is gone never comes back. So a lane whose owner has no row is free for good, and
``epoch`` decides who of several gets it: it grows with each change of owner.

A process that was started again need not wait for that: the first row of an instance deletes those of its former self.
If that one lives after all, it loses its lanes as one does that was given up for dead, and joins as any other member.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from ftgo_messaging.consumer import lane_rows as rows
from ftgo_messaging.consumer.lane_shares import beyond, fill, shares
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import TransientError

_UNBALANCED_SECONDS = 0.25


class LaneLost(TransientError):
    """Another member reads the lane now, or is about to."""


class LaneLeases:
    """The lanes (``CHANNEL/LANE``) that one member of a consumer holds, of those it wants. Call ``hold``, ``give_up``
    and ``release`` one after the other, outside of any transaction. They do not wait for a batch that is being handled.

    ``held`` maps each lane to its epoch. ``surplus`` are those among them that are another's share: stop reading them,
    then ``give_up``. Counted on this machine from before the question to the database, the lease ends earlier here than
    there: who is ``sure`` may read. ``instance`` names this process over its restarts, and among all processes."""

    def __init__(
        self,
        consumer: str,
        lanes: Collection[str],
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        instance: str | None = None,
    ) -> None:
        self.consumer = consumer
        self.seconds = seconds
        self._instance = instance
        self._returns = instance
        self.owner = self._new_name()
        self.held: dict[str, int] = {}
        self.surplus: Collection[str] = ()
        self._wanted = sorted(lanes)
        self._clock = clock
        self._joined = False
        self._missing = True
        self._asked = -seconds

    @property
    def sure(self) -> bool:
        """Whether it is certain that nobody else holds these lanes now, with a tenth of the lease to spare."""
        return bool(self.held) and self._clock() < self._asked + self.seconds * 0.9

    @property
    def renew_in(self) -> float:
        """Seconds until ``hold`` is due, 0 when it is: every second, since others may come and go at any moment, and
        four times as often while this member has too much or too little."""
        after = min(self.seconds / 3, _UNBALANCED_SECONDS if self.surplus or self._missing else 1.0)
        return max(0.0, self._asked + after - self._clock())

    async def hold(self, connection: Connection) -> bool:
        """Renew, take free lanes up to this member's share, and find the surplus, if that is due. Returns whether any
        lane is held.

        A member that was given up for dead holds nothing when this returns, and joins anew with the next call: so a
        lane that it gets again has been missing from ``held`` in between."""
        if self.renew_in > 0:
            return bool(self.held)
        asked = self._clock()
        mine = {"consumer": self.consumer, "owner": self.owner, "ttl": self.seconds, "lanes": self._wanted}
        if not self._joined:
            await connection.execute(rows.SEED, mine)
            # Once in the life of a process: two with the same name, by mistake, would drive out each other for ever.
            await connection.execute(rows.JOIN, mine | {"returns": self._returns})
            self._returns = None
        members = await connection.execute(rows.RENEW, mine)
        if not (members and members[0]["renewed"]):
            self._begin_anew()
            return False
        self._joined = True
        if any(m["late"] for m in members):
            await connection.execute(rows.SWEEP, mine)
        share = shares({m["member"]: m["wants"] for m in members if not m["late"]})[self.owner]
        leases = await connection.execute(rows.LOOK, mine)
        held = {lease["lane"]: lease["epoch"] for lease in leases if lease["mine"]}
        if free := fill(share, held, {lease["lane"]: lease["epoch"] for lease in leases if lease["free"]}):
            held |= await self._change(connection, self.owner, free)
        self.held = held
        self.surplus = beyond(share, held)
        self._missing = len(held) - len(self.surplus) < sum(share.values())
        self._asked = asked
        return bool(held)

    async def give_up(self, connection: Connection, lanes: Collection[str]) -> None:
        """Let others have them. Nothing of them is in hand any more; what a transaction still works at stays held."""
        given = await self._change(connection, "", {lane: self.held[lane] for lane in lanes if lane in self.held})
        self.held = {lane: epoch for lane, epoch in self.held.items() if lane not in given}
        self.surplus = [lane for lane in self.surplus if lane not in given]

    def epochs(self, lanes: Iterable[str]) -> dict[str, int]:
        """Of these lanes, for ``check``: to be asked when a batch is taken. Raises LaneLost."""
        wanted = set(lanes)
        if lost := wanted - self.held.keys():
            raise LaneLost(f"consumer {self.consumer} does not hold {', '.join(sorted(lost))} here")
        return {lane: self.held[lane] for lane in sorted(wanted)}

    async def check(self, connection: Connection, epochs: Mapping[str, int]) -> None:
        """The fence, as the first statement of the transaction that records effects of these lanes: nobody takes them
        before it ends. Raises LaneLost when somebody has; then ``hold`` is due."""
        found = await connection.execute(rows.CHECK, self._seen(epochs))
        if lost := epochs.keys() - {row[0] for row in found}:
            self._asked = -self.seconds
            raise LaneLost(f"another member of consumer {self.consumer} has taken {', '.join(sorted(lost))}")

    async def release(self, connection: Connection) -> None:
        """Leave. Others get everything with their next ``hold``."""
        owner = self.owner
        self._begin_anew()
        await connection.execute(rows.LEAVE, {"consumer": self.consumer, "owner": owner})

    def _begin_anew(self) -> None:
        """Under a new name: by its row, the old one was free to be taken from."""
        self.owner = self._new_name()
        self.held, self.surplus = {}, ()
        self._joined, self._missing = False, True
        self._asked = -self.seconds

    def _new_name(self) -> str:
        return f"{self._instance}/{new_id()}" if self._instance else new_id()

    def _seen(self, epochs: Mapping[str, int]) -> dict[str, object]:
        return {"consumer": self.consumer, "lanes": list(epochs), "epochs": list(epochs.values())}

    async def _change(self, connection: Connection, to: str, seen: Mapping[str, int]) -> dict[str, int]:
        """The lanes of which ``to`` has become the owner, and their new epochs."""
        changed = await connection.execute(rows.CHANGE, {"to": to, **self._seen(seen)})
        return {row["lane"]: row["epoch"] for row in changed}
