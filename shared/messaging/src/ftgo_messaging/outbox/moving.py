"""From one broker to another while messages flow: the relay's part, which keeps the order per key.

The relay closes its publisher on the old broker, so that nothing more can arrive there, and asks that broker again and
again which lanes its readers have settled to the end. Rows of such a lane go to the new broker; rows of the others wait
in the outbox, their keys left out of what is looked for. So a message is published on the new broker when everything
before it in its lane is committed by everybody who reads it.

Nothing of that is kept. Whoever begins in the middle (a restart, a relay that has got shards of another one, which may
have published on the old broker until then) waits for all lanes again; that is one question when they are read already.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog
from prometheus_client import Gauge

from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox.lease import Lease
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.outbox.stopped import Stopped
from ftgo_messaging.runtime.loops import repeat
from ftgo_messaging.transports.lanes import lane_of, names_of
from ftgo_messaging.transports.port import BrokerRefuses, Publisher, Sent, Transport

log = structlog.get_logger("ftgo.relay")

UNMOVED = Gauge("ftgo_relay_unmoved_lanes", "Lanes that the old broker's readers have not read to their end")

_LOOK_SECONDS = 0.2
_ANSWER_SECONDS = 10.0
_AFTER_REFUSAL_SECONDS = 5.0

Readers = Mapping[str, Collection[str]]
"""The consumers of each channel, by its name."""
NOBODY: Readers = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Route:
    """Where to publish: ``publisher``, and of a lane not before it is read to its end on the brokers ``before``.
    ``generation`` grows with each route; None: there will be no other one."""

    publisher: Publisher
    generation: int | None = None
    before: Sequence[Transport] = ()


@dataclass(slots=True, eq=False)
class _Old:
    """A broker that is left, and the lanes there that are not known to be read to their end."""

    transport: Transport
    unread: set[str]

    def holds(self, message: Message) -> bool:
        lane = lane_of(message.key, self.transport.lanes)
        return f"{message.channel}/{lane}" in self.unread


@dataclass(slots=True)
class _Known:
    """What was found since ``entitle`` was last told of shards that are new."""

    shards: dict[int, int] = field(default_factory=dict)
    old: list[_Old] = field(default_factory=list)


class Moving:
    """A publisher that can be told to go on at another broker. A relay is told of it as well, and asks it for each row.

    ``readers`` names all channels and their consumers; a message of another channel waits for nobody. Holding ``turn``,
    a relay's round is on one route from its look at the lease to its delete."""

    def __init__(self, route: Route, readers: Readers) -> None:
        self.turn = asyncio.Lock()
        self._route = route
        self._next: Route | None = None
        self._readers = readers
        self._known = _Known(old=self._all_of(route))
        self._changed = WakeUp()

    def serve(self, lease: Lease, stopped: Stopped, wake_up: WakeUp) -> None:
        """Called by the relay, once: whom it moves."""
        self._lease, self._stopped, self._wake_up = lease, stopped, wake_up
        lease.generation = self._route.generation

    def go(self, route: Route) -> None:
        """Go on there, as soon as ``run`` comes to it; the relay's round that is under way ends before."""
        self._next = route
        self._changed.ring()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        return await self._route.publisher.publish(messages)

    async def close(self) -> None:
        await self._route.publisher.close()

    @property
    def unmoved(self) -> int | None:
        """Lanes that this relay still waits for. None: it holds no shard, and so has nothing to move."""
        if self._next is not None:
            return _count(self._all_of(self._next))
        if self._lease.stands_by:
            return None
        known = self._known.old if self._is_entitled() else self._all_of(self._route)
        return _count(known)

    def waits(self, message: Message) -> bool:
        """Whether it is to stay in the outbox for now."""
        return any(old.holds(message) for old in self._known.old)

    def entitle(self) -> None:
        """Take note of the shards that the lease holds. Until it held them, another relay may have published their keys
        on the old broker: with new ones all lanes are waited for again."""
        if not self._is_entitled():
            self._known = _Known(dict(self._lease.held), self._all_of(self._route))

    def _is_entitled(self) -> bool:
        return self._lease.held.items() <= self._known.shards.items()

    def _all_of(self, route: Route) -> list[_Old]:
        return [_Old(transport, set(names_of(self._readers, transport.lanes))) for transport in route.before]

    async def run(self) -> None:
        """Until cancelled. While the old broker does not answer, its lanes wait."""
        await repeat("relay.moving", self._step)

    async def _step(self) -> None:
        if self._next is not None:
            await self._turn_to(self._next)
        if self._route.before and self._lease.sure:
            self.entitle()
            if self._known.old:
                await self._look()
        if self._next is None:
            await self._changed.wait(_LOOK_SECONDS if self._route.before else None)

    async def _turn_to(self, route: Route) -> None:
        async with self.turn:
            if route.publisher is not self._route.publisher:
                await self._route.publisher.close()
            self._route = route
            self._lease.generation = route.generation
            self._known = _Known(old=self._all_of(route))
            self._next = None if self._next is route else self._next
        UNMOVED.set(_count(self._known.old))
        self._let_go()
        log.info("relay.route", generation=route.generation, lanes_to_wait_for=_count(self._known.old))

    async def _look(self) -> None:
        known = self._known
        for old in list(known.old):
            channels = {lane.rpartition("/")[0] for lane in old.unread}
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    found = await old.transport.unread({c: self._readers[c] for c in self._readers if c in channels})
            except BrokerRefuses as refusal:
                log.error("relay.cannot_move", why=str(refusal))
                await self._changed.wait(_AFTER_REFUSAL_SECONDS)
                return
            if known is not self._known:
                return  # it was asked for other shards, or for another route
            old.unread -= {lane for lane, count in found.items() if count == 0}
            if not old.unread:
                known.old.remove(old)
        self._let_go()
        UNMOVED.set(_count(known.old))
        if not known.old:
            log.info("relay.moved", generation=self._route.generation)

    def _let_go(self) -> None:
        """Have the relay look again, also for the keys that have waited."""
        self._stopped.let_go()
        self._wake_up.ring()


def _count(brokers: Sequence[_Old]) -> int:
    return sum(len(old.unread) for old in brokers)
