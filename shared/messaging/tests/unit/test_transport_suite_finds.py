"""Each test of the conformance suite can fail: for every fault that is planted here into the memory broker, the test
that is named beside it does. Without a fault the same broker passes them all.

Tests that need members in other processes or a database have theirs in tests/integration:
test_transport_suite_finds_in_processes.py and test_transport_suite_finds_in_services.py.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.testing.transport_suite import TransportSuite
from ftgo_messaging.transports import memory
from ftgo_messaging.transports.memory import MemoryBroker, MemoryPublisher, MemorySubscription, MemoryTransport
from ftgo_messaging.transports.port import Batch, Record, Sent


class Persistent:
    """A memory broker that says that it keeps what it has when it is killed, and does."""

    url = None
    stop = None

    def __init__(self, **promised: Any) -> None:
        self.traits = replace(memory.TRAITS, **{"persistent": True, "takeover_seconds": 0.1, **promised})
        self.broker = MemoryBroker()

    def transport(self) -> MemoryTransport:
        transport = MemoryTransport(self.broker, self.broker.lanes)
        transport.traits = self.traits
        return transport

    async def kill(self) -> None:
        self.broker.away = True
        self.broker.wake()

    async def start(self) -> None:
        self.broker.away = False
        self.broker.wake()


class Quick(TransportSuite):
    away_seconds = 0.3
    waiting = 12_000
    most_growth = 6_000_000
    per_entity = 30
    patience = 1.0


TESTS = [
    name
    for name, test in inspect.getmembers(Quick, inspect.iscoroutinefunction)
    if name.startswith("test_") and set(inspect.signature(test).parameters) == {"self", "wire"}
]
FOR_PROCESSES = {"test_a_killed_member"}
FAULTS: list[Any] = []
Patch = pytest.MonkeyPatch


def found_by(*names: str, **promised: Any) -> Callable[[Callable[[Patch], None]], None]:
    def declare(plant: Callable[[Patch], None]) -> None:
        for name in names:
            FAULTS.append(pytest.param(plant, name, promised, id=f"{plant.__name__}-{name}"))

    return declare


async def run(name: str, **promised: Any) -> None:
    wire = Wire(Persistent(**promised), Quick.patience)
    try:
        await getattr(Quick(), name)(wire)
    finally:
        await wire.close()


@pytest.mark.parametrize("name", [name for name in TESTS if name not in FOR_PROCESSES | {"test_replay"}])
async def test_it_passes_without_a_fault(name: str) -> None:
    await run(name)


def test_each_test_has_a_fault() -> None:
    named = {fault.values[1] for fault in FAULTS}
    assert named == set(TESTS) - FOR_PROCESSES


# -- the broker --------------------------------------------------------------------------------------------------------

put, first = MemoryBroker.put, MemorySubscription._first
take, settle, open_, assign = (getattr(MemorySubscription, n) for n in ("take", "settle", "open", "assign"))
publish, declare = MemoryPublisher.publish, MemoryTransport.declare


@found_by("test_competing_members", "test_publish_subscribe", "test_several_channels", "test_release")
def loses_one(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        return Sent.CONFIRMED if message.headers["sequence"] == "3" else put(self, message)

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_competing_members", "test_publish_subscribe")
def doubles_one(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        if message.headers["sequence"] == "3":
            put(self, message)
        return put(self, message)

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_competing_members")
def all_to_the_first_member(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, lanes: Collection[str]) -> None:
        all_ = [f"{channel}/{lane}" for channel in self._channels for lane in range(12)]
        await assign(self, all_ if not lanes or any(lane.endswith("/0") for lane in lanes) else [])

    patch.setattr(MemorySubscription, "assign", faulty)


@found_by("test_competing_members")
def everybody_reads_all(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, lanes: Collection[str]) -> None:
        await assign(self, [f"{channel}/{lane}" for channel in self._channels for lane in range(12)])

    patch.setattr(MemorySubscription, "assign", faulty)


@found_by("test_publish_subscribe")
def subscribers_compete(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        all_ = self.channels[message.channel]
        self.channels[message.channel] = {sorted(all_)[int(message.headers["sequence"]) % len(all_)]}
        sent = put(self, message)
        self.channels[message.channel] = all_
        return sent

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_durable_subscriber")
def forgets_who_closes(patch: Patch) -> None:
    async def faulty(self: MemorySubscription) -> None:
        for channel in self._channels:
            self._broker.channels[channel].discard(self._consumer)

    patch.setattr(MemorySubscription, "close", faulty)


@found_by("test_durable_subscriber", "test_declared_twice", "test_killed_broker")
def knows_only_who_is_there(patch: Patch) -> None:
    async def faulty(self: MemoryTransport, channels: Sequence[Channel], _: Any) -> Sequence[str]:
        return await declare(self, channels, {})

    patch.setattr(MemoryTransport, "declare", faulty)
    patch.setattr(memory, "check_readers", lambda *_: None)


@found_by("test_nobody_reads")
def confirms_what_is_for_nobody(patch: Patch) -> None:
    patch.setattr(memory, "check_readers", lambda *_: None)


@found_by("test_declared_twice")
def empties_what_it_declares(patch: Patch) -> None:
    async def faulty(
        self: MemoryTransport, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]
    ) -> Sequence[str]:
        self._broker.queues.clear()
        return await declare(self, channels, readers)

    patch.setattr(MemoryTransport, "declare", faulty)


@found_by("test_replay", replays=True)
def begins_with_what_comes(patch: Patch) -> None:
    """As the memory broker does: it does not promise to replay."""


@found_by("test_order_per_key", "test_headers")
def lanes_at_random(patch: Patch) -> None:
    patch.setattr(memory, "lane_of", lambda key, lanes: hash(new_id()) % lanes)


@found_by("test_control_without_a_key")
def one_lane_for_all(patch: Patch) -> None:
    patch.setattr(memory, "lane_of", lambda key, lanes: 0)


@found_by("test_killed_broker")
def confirms_before_storing(patch: Patch) -> None:
    async def faulty(self: Persistent) -> None:
        for queue in self.broker.queues.values():
            queue.clear() if len(queue) < 2 else queue.pop()
        self.broker.away = True

    patch.setattr(Persistent, "kill", faulty)


# -- the publisher -----------------------------------------------------------------------------------------------------


@found_by("test_refused")
def confirms_the_unroutable(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        return put(self, message) if message.channel in self.channels else Sent.CONFIRMED

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_refused")
def cuts_the_oversized(patch: Patch) -> None:
    patch.setattr(MemoryBroker, "put", lambda self, message: put(self, replace(message, body=message.body[:1000])))


@found_by("test_refused")
def refuses_those_beside(patch: Patch) -> None:
    async def faulty(self: MemoryPublisher, messages: Sequence[Message]) -> Sequence[Sent]:
        sent = await publish(self, messages)
        return [Sent.REFUSED] * len(sent) if Sent.REFUSED in sent else sent

    patch.setattr(MemoryPublisher, "publish", faulty)


@found_by("test_nobody_listens")
def refuses_what_nobody_wants(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        return put(self, message) if self.channels.get(message.channel) else Sent.REFUSED

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_broker_away")
def confirms_while_away(patch: Patch) -> None:
    async def faulty(self: MemoryPublisher, messages: Sequence[Message]) -> Sequence[Sent]:
        return [Sent.CONFIRMED for _ in messages] if self._broker.away else await publish(self, messages)

    patch.setattr(MemoryPublisher, "publish", faulty)


@found_by("test_broker_away")
def refuses_while_away(patch: Patch) -> None:
    async def faulty(self: MemoryPublisher, messages: Sequence[Message]) -> Sequence[Sent]:
        return [Sent.REFUSED for _ in messages] if self._broker.away else await publish(self, messages)

    patch.setattr(MemoryPublisher, "publish", faulty)


@found_by("test_broker_away")
def forgets_its_lanes_with_the_connection(patch: Patch) -> None:
    def faulty(self: MemorySubscription, most: int) -> list[Record]:
        if self._broker.away:
            self._lanes = []
        return first(self, most)

    patch.setattr(MemorySubscription, "_first", faulty)


@found_by("test_cancelled")
def leaves_tasks_behind(patch: Patch) -> None:
    async def faulty(self: MemoryPublisher, messages: Sequence[Message]) -> Sequence[Sent]:
        left = asyncio.create_task(asyncio.sleep(3))
        await asyncio.sleep(0.001)
        sent = await publish(self, messages)
        left.cancel()
        return sent

    patch.setattr(MemoryPublisher, "publish", faulty)


# -- the subscription --------------------------------------------------------------------------------------------------


@found_by("test_several_channels")
def reads_the_first_channel_only(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, lanes: Collection[str]) -> None:
        await assign(self, [lane for lane in lanes if lane.startswith(self._channels[0] + "/")])

    patch.setattr(MemorySubscription, "assign", faulty)


@found_by("test_release", "test_order_per_key")
def reorders_what_is_released(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, batch: Batch) -> None:
        for record in batch.records:
            queue = self._broker.queues[self._consumer, record.lane]
            queue.remove(record)
            queue.append(record)

    patch.setattr(MemorySubscription, "release", faulty)


@found_by("test_release")
def forgets_what_is_released(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, batch: Batch) -> None:
        settle(self, batch)

    patch.setattr(MemorySubscription, "release", faulty)


@found_by("test_release")
def ignores_how_many_are_wanted(patch: Patch) -> None:
    patch.setattr(MemorySubscription, "_first", lambda self, _: first(self, 500))


@found_by("test_closed_without_settling", "test_durable_subscriber", "test_backlog")
def settles_nothing(patch: Patch) -> None:
    patch.setattr(MemorySubscription, "settle", lambda self, batch: None)


@found_by("test_closed_without_settling", "test_order_per_key", "test_clean_stop")
def settles_when_taken(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, most: int, wait: float) -> Batch | None:
        batch = await take(self, most, wait)
        if batch is not None:
            settle(self, batch)
        return batch

    patch.setattr(MemorySubscription, "take", faulty)


@found_by("test_closed_without_settling")
def another_origin_each_time(patch: Patch) -> None:
    async def taking(self: MemorySubscription, most: int, wait: float) -> Batch | None:
        batch = await take(self, most, wait)
        return batch and Batch([replace(r, origin=f"{r.lane}@{new_id()}") for r in batch.records], batch)

    patch.setattr(MemorySubscription, "take", taking)
    patch.setattr(MemorySubscription, "settle", lambda self, batch: settle(self, batch.receipt))


@found_by("test_clean_stop")
def keeps_lanes_for_a_while(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, lanes: Collection[str]) -> None:
        added = set(lanes) - set(self._lanes)
        await assign(self, set(lanes) - added)
        asyncio.get_running_loop().call_later(1.2 if self._lanes else 0, later, self, lanes)

    def later(self: MemorySubscription, lanes: Collection[str]) -> None:
        self._lanes = sorted(lanes)
        self._broker.wake()

    patch.setattr(MemorySubscription, "assign", faulty)


@found_by("test_long_work")
def gives_up_on_who_takes_long(patch: Patch) -> None:
    taken: dict[Batch, float] = {}

    async def faulty(self: MemorySubscription, most: int, wait: float) -> Batch | None:
        batch = await take(self, most, wait)
        if batch is not None:
            taken[batch] = asyncio.get_running_loop().time()
        return batch

    def in_time(self: MemorySubscription, batch: Batch) -> None:
        if asyncio.get_running_loop().time() < taken[batch] + 0.5:
            settle(self, batch)

    patch.setattr(MemorySubscription, "take", faulty)
    patch.setattr(MemorySubscription, "settle", in_time)


@found_by("test_backlog")
def counts_without_those_in_hand(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, most: int, wait: float) -> Batch | None:
        batch = await take(self, most, wait)
        self.in_hand = 0 if batch is None else len(batch.records)  # type: ignore[attr-defined]
        return batch

    async def count(self: MemorySubscription) -> Mapping[str, int | None]:
        waiting = {lane: len(self._broker.queues[self._consumer, lane]) for lane in self._lanes}
        hand = getattr(self, "in_hand", 0)
        return {lane: max(0, n - hand) for lane, n in waiting.items()}

    patch.setattr(MemorySubscription, "take", faulty)
    patch.setattr(MemorySubscription, "backlog", count)


@found_by("test_back_pressure")
def fetches_without_bound(patch: Patch) -> None:
    async def faulty(self: MemorySubscription) -> None:
        await open_(self)
        all_ = self._broker.queues.items()
        self.fetched = [bytes(bytearray(r.body or b"")) for _, queue in all_ for r in queue]  # type: ignore[attr-defined]

    patch.setattr(MemorySubscription, "open", faulty)


@found_by("test_cancelled")
def loses_what_a_cut_off_take_had(patch: Patch) -> None:
    async def faulty(self: MemorySubscription, most: int, wait: float) -> Batch | None:
        batch = await take(self, most, wait)
        if batch is not None:
            settle(self, batch)
            await asyncio.sleep(0.002)
        return batch

    patch.setattr(MemorySubscription, "take", faulty)


# -- what a message looks like afterwards ------------------------------------------------------------------------------


def mangled(patch: Patch, **changes: Callable[[Record], Any]) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        sent = put(self, message)
        for queue in self.queues.values():
            with contextlib.suppress(IndexError):
                queue[-1] = replace(queue[-1], **{name: change(queue[-1]) for name, change in changes.items()})
        return sent

    patch.setattr(MemoryBroker, "put", faulty)


def values(change: Callable[[bytes], bytes | None]) -> Callable[[Record], Any]:
    return lambda record: [(name, change(value or b"")) for name, value in record.headers]


@found_by("test_headers")
def strips_values(patch: Patch) -> None:
    mangled(patch, headers=values(bytes.strip))


@found_by("test_headers")
def ascii_only(patch: Patch) -> None:
    mangled(patch, headers=values(lambda value: value.decode().encode("ascii", "replace")))


@found_by("test_headers")
def folds_lines(patch: Patch) -> None:
    mangled(patch, headers=values(lambda value: value.replace(b"\r\n", b"\n")))


@found_by("test_headers")
def cuts_long_values(patch: Patch) -> None:
    mangled(patch, headers=values(lambda value: value[:4096]))


@found_by("test_headers")
def drops_empty_headers(patch: Patch) -> None:
    mangled(patch, headers=lambda record: [pair for pair in record.headers if pair[1]])


@found_by("test_headers")
def names_in_lower_case_with_a_prefix(patch: Patch) -> None:
    mangled(patch, headers=lambda record: [(f"ce_{name}", value) for name, value in record.headers])


@found_by("test_headers")
def keys_without_blanks(patch: Patch) -> None:
    mangled(patch, key=lambda record: (record.key or b"").replace(b" ", b"_"))


@found_by("test_headers")
def bodies_are_texts(patch: Patch) -> None:
    mangled(patch, body=lambda record: (record.body or b"").decode("utf-8", "replace").encode())


@found_by("test_large_bodies")
def cuts_large_bodies(patch: Patch) -> None:
    mangled(patch, body=lambda record: (record.body or b"")[:500_000])


@pytest.mark.parametrize(("plant", "name", "promised"), FAULTS)
async def test_the_fault_is_found(
    plant: Callable[[Patch], None], name: str, promised: Mapping[str, Any], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, TimeoutError)):
        await run(name, **promised)
