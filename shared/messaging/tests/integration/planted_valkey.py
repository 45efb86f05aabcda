"""Valkey's transport with a fault in it, for members in processes of their own: the environment says which.

Each is what an adapter, or a broker, could do wrong, and what the conformance suite has to find.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports import valkey
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import Batch, Sent
from ftgo_messaging.transports.valkey.publisher import ValkeyPublisher
from ftgo_messaging.transports.valkey.streams import ask
from ftgo_messaging.transports.valkey.subscription import ValkeySubscription

FAULT = "FTGO_PLANTED_FAULT"
CLAIM_SECONDS = 60


class SettlesWhenTaken(ValkeySubscription):
    """What a member has in hand goes with it."""

    async def take(self, most: int, wait: float) -> Batch | None:
        batch = await super().take(most, wait)
        if batch is not None:
            self.settle(batch)
            await self._tell()
        return batch


class AnotherOriginEachTime(ValkeySubscription):
    async def take(self, most: int, wait: float) -> Batch | None:
        batch = await super().take(most, wait)
        return batch and Batch([replace(r, origin=f"{r.lane}@{new_id()}") for r in batch.records], batch.receipt)


class BeginsWithWhatComes(ValkeySubscription):
    """Whoever gets a lane reads what is sent from then on: what waited meanwhile is lost."""

    async def assign(self, lanes: Collection[str]) -> None:
        new = set(lanes) - set(self._lanes)
        await super().assign(lanes)
        for lane in (self._lanes[name] for name in new):
            await ask(self._connected(), "XGROUP", "SETID", lane.stream, self._consumer, "$")


class LanesOfAll(ValkeySubscription):
    """As a queue with competing consumers: every member reads every lane, and each record goes to who is first."""

    async def open(self) -> None:
        await super().open()
        await self.assign([f"{channel}/{lane}" for channel in self._channels for lane in range(LANES)])

    async def take(self, most: int, wait: float) -> Batch | None:
        if (batch := await super().take(min(most, 5), wait)) is None:
            return None
        mine = [record for record in batch.records if await self._claim(record.origin)]
        if not mine:
            self.settle(batch)
            return None
        return Batch(mine, batch.receipt)

    async def _claim(self, origin: str) -> bool:
        owner = await ask(self._connected(), "SET", f"claim:{origin}", self._name, "NX", "GET", "EX", CLAIM_SECONDS)
        return owner is None or owner in {self._name, self._name.encode()}


class LosesAtRandom(ValkeyPublisher):
    """Confirms, and sends nothing of every hundredth message."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        await super().publish([x for x in messages if int(x.id[-4:], 16) % 100])
        return [Sent.CONFIRMED] * len(messages)


LANE_OF: Mapping[str, Callable[[str, int], int]] = {
    "OneLane": lambda key, lanes: 0,  # nothing is out of order then, whatever the key
    "RandomLanes": lambda key, lanes: hash(new_id()) % lanes,
}
"""Of the sender: a lane that is not the key's."""
PUBLISHERS: Mapping[str, type[ValkeyPublisher]] = {LosesAtRandom.__name__: LosesAtRandom}
SUBSCRIPTIONS: Mapping[str, type[ValkeySubscription]] = {
    each.__name__: each for each in (SettlesWhenTaken, AnotherOriginEachTime, BeginsWithWhatComes, LanesOfAll)
}


class Planted(valkey.ValkeyTransport):
    @property
    def fault(self) -> str:
        return os.environ.get(FAULT, "")

    @property
    def traits(self) -> valkey.Traits:  # type: ignore[override]
        return replace(valkey.TRAITS, assigns=self.fault == LanesOfAll.__name__)

    def publisher(self, client: str) -> ValkeyPublisher:
        return PUBLISHERS.get(self.fault, ValkeyPublisher)(self._address, client)

    def subscription(
        self, consumer: str, channels: Sequence[Channel], instance: str | None = None
    ) -> ValkeySubscription:
        made = SUBSCRIPTIONS.get(self.fault, ValkeySubscription)
        return made(self._address, consumer, [channel.name for channel in channels], instance)


def transport(url: str) -> Planted:
    return Planted(valkey.transport(url)._address)
