"""The parts of a relay that need no server: what waits after a failure, and how sure a lease is."""

from collections.abc import Sequence

import pytest
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox.lease import Lease
from ftgo_messaging.outbox.polling import REST, PollingPublisher, rest_after
from ftgo_messaging.outbox.relay import RelayStatus, WakeUp
from ftgo_messaging.outbox.stopped import MOST_KEYS, Stopped
from ftgo_messaging.outbox.table import SHARDS, shards_of
from ftgo_messaging.transports.port import Sent
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import create_async_engine


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_failed_key_waits_longer_each_time_and_is_forgotten_when_it_passes() -> None:
    clock = Clock()
    stopped = Stopped(clock)
    longest = 0.0
    for attempt in range(12):
        stopped.note([("c", "a")], [("c", "b")])
        assert stopped.waiting() == ([("c", "a")], [])
        wait = stopped.next_attempt()
        assert wait is not None
        assert 0.05 * 2 ** min(attempt, 5) <= wait <= 5.0
        longest = max(longest, wait)
        clock.now += wait + 0.001
        assert stopped.waiting() == ([], [])
        assert ("c", "a") in stopped
    assert longest >= 2.5
    stopped.note([], [("c", "a")])
    assert not stopped
    assert stopped.next_attempt() is None
    stopped.note([("c", "a")], [])
    wait = stopped.next_attempt()
    assert wait is not None
    assert wait <= 0.1, "its next failure is a first one"


def test_many_failed_keys_of_a_channel_stop_the_channel() -> None:
    stopped = Stopped(Clock())
    stopped.note([("c", str(i)) for i in range(MOST_KEYS + 1)] + [("d", "x")], [])
    assert stopped.waiting() == ([("d", "x")], ["c"])
    assert ("c", "never seen") in stopped
    stopped.note([], [("c", "1")])
    assert stopped.waiting() == ([("d", "x")], [])


def test_what_waits_is_tried_at_its_moment() -> None:
    clock = Clock()
    stopped = Stopped(clock)
    stopped.note([("c", str(i)) for i in range(MOST_KEYS + 1)] + [("d", "x")], [])
    clock.now = stopped._until["d", "x"]
    assert stopped.waiting()[0] == []
    clock.now = stopped._until["c", None]
    assert stopped.waiting()[1] == []


async def test_a_lease_is_sure_for_less_than_the_database_grants() -> None:
    clock = Clock()
    answers: list[list[tuple[int, int]]] = [[(0, 7)], []]

    class Connection:
        async def execute(self, *_: object) -> list[tuple[int, int]]:
            clock.now += 1  # the answer takes a second, which counts against us
            return answers.pop(0)

    lease = Lease([0], 9.0, clock)
    assert not lease.sure
    assert await lease.hold(Connection())  # type: ignore[arg-type]
    assert lease.held == {0: 7}
    assert lease.sure
    clock.now += 1
    assert lease.renew_in == pytest.approx(1.0)
    assert await lease.hold(Connection())  # type: ignore[arg-type]
    assert len(answers) == 1, "not due, not asked"
    clock.now += 6.2
    assert not lease.sure, "8.2 of 9 seconds are over"
    assert not await lease.hold(Connection())  # type: ignore[arg-type]
    assert lease.held == {}


async def test_while_shards_are_missing_a_lease_is_asked_for_every_second() -> None:
    """They may be free at any moment; and the first question is due at once."""
    clock = Clock()

    class Connection:
        async def execute(self, *_: object) -> list[tuple[int, int]]:
            return [(0, 7)]

    lease = Lease([0, 1], 9.0, clock)
    assert lease.renew_in == 0
    assert await lease.hold(Connection())  # type: ignore[arg-type]
    assert lease.renew_in == pytest.approx(1.0)
    lease.forget()
    assert (lease.renew_in, lease.held, lease.sure) == (0, {}, False)


async def test_a_tenth_of_a_lease_is_to_spare() -> None:
    clock = Clock()

    class Connection:
        async def execute(self, *_: object) -> list[tuple[int, int]]:
            return [(0, 7)]

    lease = Lease([0], 10.0, clock)
    assert await lease.hold(Connection())  # type: ignore[arg-type]
    sure = []
    for clock.now in (1008.9, 1009.0, 1009.1):
        sure.append(lease.sure)
    assert sure == [True, False, False]


def test_a_relay_rests_in_proportion_to_what_it_has_moved() -> None:
    assert [rest_after(moved) for moved in (0, 1, 2, 100, 5000)] == [0, 0, REST / 99, REST, REST]


class Waits(WakeUp):
    """Notes how long a relay would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    async def wait(self, timeout: float) -> bool:
        self.seconds.append(timeout)
        return await super().wait(0)


class Nobody:
    async def publish(self, messages: Sequence[Message]) -> list[Sent]:
        return []


async def test_an_idle_relay_asks_less_often_and_a_busy_one_at_once() -> None:
    waits = Waits()
    engine = create_async_engine("postgresql+asyncpg://nowhere")
    relay = PollingPublisher(engine, Nobody(), waits, batch=3, interval=1.0)
    for found in (3, 0, 0, 0, 0, 0, 1, 0, 3):
        await relay._wait(found)
    assert waits.seconds == [0.1, 0.2, 0.4, 0.8, 1.0, 0.05, 0.1]
    relay.delivery.stopped.note([("c", "k")], [])
    for found in (0, 0, 0):
        await relay._wait(found)
    assert waits.seconds[-1] == pytest.approx(0.1, abs=0.051), "a stopped key is tried again when its time has come"
    assert not await waits.wait(0)
    relay.stop()
    assert await waits.wait(0), "a relay that waits hears that it is to end"


def test_what_a_relay_holds_and_when_it_was_well_are_metrics() -> None:
    status = RelayStatus()
    roles = [status.role]
    for shards in (0, 64):
        status.holds(shards)
        roles.append(status.role)
        assert REGISTRY.get_sample_value("ftgo_relay_shards") == shards
    assert roles == ["starting", "standby", "owner"]
    status.round_done()
    assert REGISTRY.get_sample_value("ftgo_relay_last_round_timestamp_seconds") == status.last_round > 0


def test_the_groups_of_any_division_cover_all_shards_once() -> None:
    for of in (1, 2, 3, 4, 64):
        assert sorted(s for i in range(of) for s in shards_of(i, of)) == list(range(SHARDS))
    for index, of in [(1, 1), (-1, 2), (0, 65), (0, 0)]:
        with pytest.raises(ValueError, match="the index counts from 0"):
            shards_of(index, of)
