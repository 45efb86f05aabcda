"""Who reads which lanes: never two with the same epoch, a fair share each, and no effect of one that lost its lane."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer import lane_rows
from ftgo_messaging.consumer.lanes import LaneLeases, LaneLost
from ftgo_messaging.runtime.connection import Connection, begin, connect
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, Text, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

METADATA = MetaData()
messaging_tables(METADATA)
Table(
    "effects",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("lane", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)
_EFFECT = text("INSERT INTO effects (lane, epoch) VALUES (:lane, :epoch)")
LANES = [f"{channel}/{lane}" for channel in ("orders", "orders.commands") for lane in range(12)]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Team:
    """Members of one consumer. Their clock moves from one ``hold`` to the next, so that each is due."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = Clock()
        self.owners: dict[tuple[str, int], str] = {}

    def join(self, lanes: list[str] = LANES, instance: str | None = None) -> LaneLeases:
        return LaneLeases("consumer", lanes, 10.0, self.clock, instance)

    async def hold(self, member: LaneLeases) -> None:
        """As a member does it. Notes who had which lane in which epoch, and looks for a second one."""
        self.clock.now += 1
        async with connect(self.engine) as connection:
            await member.hold(connection)
            self.note(member)
            if member.surplus:
                await member.give_up(connection, member.surplus)

    def note(self, member: LaneLeases) -> None:
        for lane, epoch in member.held.items():
            owner = self.owners.setdefault((lane, epoch), member.owner)
            assert owner == member.owner, f"two have {lane} in epoch {epoch}"

    async def settle(self, members: list[LaneLeases]) -> None:
        """What each has after some rounds: all lanes have one reader, and the shares are fair."""
        # Who was given up for dead finds that out, joins, the others give up what is too much, and the first take it.
        for _ in range(5):
            for member in members:
                await self.hold(member)
        assert sorted(lane for member in members for lane in member.held) == sorted(LANES)
        for prefix in ("orders/", "orders.commands/", ""):
            counts = [sum(lane.startswith(prefix) for lane in member.held) for member in members]
            assert max(counts) - min(counts) <= 1, (prefix, counts)

    async def effect(self, member: LaneLeases, epochs: Mapping[str, int], *, fenced: bool = True) -> None:
        """Of a batch, with some time between the check and the end of the transaction."""
        async with begin(self.engine) as connection:
            if fenced:
                await member.check(connection, epochs)
            await connection.execute(text("SELECT pg_sleep(random() * 0.002)"))
            for lane, epoch in epochs.items():
                await connection.execute(_EFFECT, {"lane": lane, "epoch": epoch})

    async def release(self, member: LaneLeases) -> None:
        async with connect(self.engine) as connection:
            await member.release(connection)

    async def expire(self, member: LaneLeases) -> None:
        """As if it had been silent for longer than its lease."""
        await self.execute(
            f"UPDATE lane_member SET expires_at = now() - interval '1 second' WHERE member = '{member.owner}'"
        )

    async def execute(self, sql: str) -> list[Any]:
        async with connect(self.engine) as connection:
            return await connection.execute(text(sql))


@pytest.fixture
async def team(postgres: Postgres) -> AsyncIterator[Team]:
    dsn = (await postgres.create_service_databases(["lanes"]))["lanes"]
    async with new_tables(dsn, METADATA, pool_size=20) as engine:
        yield Team(engine)


# -- shares ------------------------------------------------------------------------------------------------------------


async def test_the_first_has_all_and_with_a_second_each_has_half_of_each_channel(team: Team) -> None:
    first, second = team.join(), team.join()
    await team.hold(first)
    assert sorted(first.held) == sorted(LANES)
    assert set(first.held.values()) == {1}
    await team.hold(second)
    assert second.held == {}
    await team.hold(first)
    await team.hold(second)
    for member in (first, second):
        assert Counter(lane.split("/")[0] for lane in member.held) == {"orders": 6, "orders.commands": 6}
    assert set(second.held.values()) == {3}, "given up, and taken: two changes"


@pytest.mark.parametrize("seed", range(3))
async def test_shares_are_fair_with_one_to_five_members_that_come_and_go(team: Team, seed: int) -> None:
    decide = random.Random(seed)
    members = [team.join()]
    await team.settle(members)
    seen = set()
    for _ in range(30):
        if len(members) == 1 or (len(members) < 5 and decide.random() < 0.7):
            members.append(team.join())
        else:
            left = members.pop(decide.randrange(len(members)))
            await (team.release(left) if decide.random() < 0.5 else team.expire(left))
        await team.settle(members)
        seen.add(len(members))
    assert seen == {1, 2, 3, 4, 5}


async def test_more_members_than_lanes(team: Team) -> None:
    members = [team.join() for _ in range(30)]
    await team.settle(members)


async def test_a_lane_that_only_one_release_reads_is_not_left_to_the_other(team: Team) -> None:
    old, new = team.join([lane for lane in LANES if lane.startswith("orders/")]), team.join()
    for member in (old, new, old, new):
        await team.hold(member)
    assert Counter(lane.split("/")[0] for lane in old.held) == {"orders": 6}
    assert Counter(lane.split("/")[0] for lane in new.held) == {"orders": 6, "orders.commands": 12}


async def test_consumers_of_one_database_do_not_mind_each_other(team: Team) -> None:
    mine, other = team.join(), LaneLeases("another", LANES, 10.0, team.clock)
    async with connect(team.engine) as connection:
        assert await mine.hold(connection)
        assert await other.hold(connection)
    assert len(mine.held) == len(other.held) == len(LANES)
    await team.release(other)
    assert await team.execute("SELECT DISTINCT consumer FROM lane_member") == [("consumer",)]


# -- coming and going --------------------------------------------------------------------------------------------------


async def test_what_is_released_another_has_with_its_next_hold(team: Team) -> None:
    first, second = team.join(), team.join()
    await team.settle([first, second])
    await team.release(first)
    assert (first.held, first.sure, first.renew_in) == ({}, False, 0)
    await team.hold(second)
    assert sorted(second.held) == sorted(LANES)
    assert await team.execute("SELECT count(*) FROM lane_member") == [(1,)]
    await team.settle([first, second])  # it may come again


async def test_one_that_was_given_up_for_dead_first_holds_nothing(team: Team) -> None:
    """Even when it could have all of it back at once: what it has in hand is old."""
    paused, other = team.join(), team.join()
    await team.hold(paused)
    await team.expire(paused)
    await team.hold(other)
    assert sorted(other.held) == sorted(LANES)
    await team.expire(other)
    before = paused.owner
    await team.hold(paused)
    assert paused.held == {}
    assert paused.owner != before
    assert paused.renew_in == 0
    await team.hold(paused)
    assert set(paused.held.values()) == {3}


async def test_one_that_was_late_and_that_nobody_missed_goes_on(team: Team) -> None:
    member = team.join()
    await team.hold(member)
    await team.expire(member)
    await team.hold(member)
    assert set(member.held.values()) == {1}


async def test_in_real_time_a_newcomer_has_its_share_soon_and_a_dead_ones_lanes_are_taken(team: Team) -> None:
    async def life(member: LaneLeases) -> None:
        while True:
            async with connect(team.engine) as connection:
                await member.hold(connection)
                if member.surplus:
                    await member.give_up(connection, member.surplus)
            await asyncio.sleep(member.renew_in)

    members = [LaneLeases("consumer", LANES, 3.0) for _ in range(3)]
    lives: list[asyncio.Task[None]] = []

    async def fair() -> None:
        read = [lane for member in members if member.sure for lane in member.held]
        if len(read) != len(set(read)):
            raise ValueError("two are sure of one lane")
        assert all(len(member.held) == len(LANES) // len(lives) for member in members[: len(lives)])

    try:
        for member in members:
            lives.append(asyncio.create_task(life(member)))
            await eventually(fair, within=3.0)  # 1.3 s at most, where the machine is not busy
        lives.pop().cancel()  # killed, and does not release
        killed = time.monotonic()
        await eventually(fair, within=3.0 + 3.0)
        assert time.monotonic() - killed > 1.5, "its lease was not over"
    finally:
        for task in lives:
            task.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


def test_hold_is_due_every_second_and_more_often_while_something_is_to_be_balanced() -> None:
    clock = Clock()
    member = LaneLeases("consumer", LANES, 10.0, clock)
    member._asked = clock.now
    assert member.renew_in == pytest.approx(0.25), "it has too little"
    member._missing = False
    assert member.renew_in == pytest.approx(1.0)
    member.surplus = ["orders/1"]
    assert member.renew_in == pytest.approx(0.25)
    clock.now += 5
    assert member.renew_in == 0


async def test_a_lease_is_sure_for_less_than_the_database_grants(team: Team) -> None:
    member = team.join()
    assert not member.sure

    async def slow() -> None:
        team.clock.now += 2

    async with connect(team.engine) as connection:
        assert await member.hold(Interrupted(connection, slow))
    sure = []
    for seconds in (6.9, 0.2):
        team.clock.now += seconds
        sure.append(member.sure)
    assert sure == [True, False], "8.9 and 9.1 of 10 seconds after the question"


# -- the fence ---------------------------------------------------------------------------------------------------------


async def test_a_member_that_was_paused_cannot_commit_and_its_successor_can(team: Team) -> None:
    paused, successor = team.join(), team.join()
    await team.hold(paused)
    old = paused.epochs(["orders/1", "orders/2"])
    await team.expire(paused)
    await team.hold(successor)
    new = successor.epochs(["orders/1", "orders/2"])
    with pytest.raises(LaneLost, match=r"another member of consumer consumer has taken orders/1, orders/2$"):
        await team.effect(paused, old)
    await team.effect(successor, new)
    assert await team.execute("SELECT lane, epoch FROM effects ORDER BY id") == [("orders/1", 2), ("orders/2", 2)]
    assert paused.renew_in == 0
    await team.hold(paused)
    with pytest.raises(LaneLost, match="consumer consumer does not hold orders/1 here"):
        paused.epochs(["orders/1"])


async def test_a_process_that_was_killed_has_its_lanes_again_at_once(team: Team) -> None:
    killed, other = team.join(instance="order-1"), team.join(instance="order-10")
    await team.settle([killed, other])
    kept, lost = dict(other.held), dict(killed.held)
    returned = team.join(instance="order-1")
    await team.hold(returned)
    assert returned.held == {lane: epoch + 1 for lane, epoch in lost.items()}
    await team.hold(other)
    assert other.held == kept, "nobody else has noticed"


async def test_a_former_self_that_lives_cannot_commit_and_joins_as_any_other(team: Team) -> None:
    paused, returned = team.join(instance="order-1"), team.join(instance="order-1")
    await team.hold(paused)
    old = paused.epochs(["orders/1", "orders/2"])
    await team.hold(returned)
    assert len(returned.held) == len(LANES)
    assert paused.sure, "it believes that it holds them: it was paused for a moment only"
    with pytest.raises(LaneLost):
        await team.effect(paused, old)
    await team.effect(returned, returned.epochs(["orders/1", "orders/2"]))
    assert await team.execute("SELECT lane, epoch FROM effects ORDER BY id") == [("orders/1", 2), ("orders/2", 2)]
    await team.hold(paused)
    assert paused.held == {}
    await team.settle([paused, returned])
    before = paused.held | returned.held
    await team.settle([paused, returned])
    assert paused.held | returned.held == before, "they do not drive out each other for ever"


async def test_what_a_former_self_is_committing_comes_first(team: Team) -> None:
    former, returned = team.join(instance="order-1"), team.join(instance="order-1")
    await team.hold(former)
    async with begin(team.engine) as connection:
        await former.check(connection, former.epochs(["orders/1"]))
        await team.hold(returned)
        assert sorted(returned.held) == sorted(set(LANES) - {"orders/1"})
    await team.hold(returned)
    assert sorted(returned.held) == sorted(LANES)


async def test_many_that_return_at_once_never_deadlock(team: Team) -> None:
    before = await deadlocks(team)
    for _ in range(20):
        members = [team.join(instance=f"order-{place % 3}") for place in range(12)]
        await asyncio.gather(*(team.hold(member) for member in members))
    assert await deadlocks(team) == before
    # All but three of the last have lost their rows, and join anew.
    await team.execute("DELETE FROM lane_member WHERE expires_at < now()")
    await team.settle(members)


async def test_one_lane_of_a_batch_that_is_lost_is_enough(team: Team) -> None:
    first, second = team.join(), team.join()
    await team.hold(first)
    epochs = first.epochs(LANES)
    await team.hold(second)
    await team.hold(first)
    kept = first.epochs(first.held)
    async with begin(team.engine) as connection:
        await first.check(connection, kept)
        await first.check(connection, {})
        with pytest.raises(LaneLost):
            await first.check(connection, epochs)


async def test_a_lane_that_came_back_does_not_let_an_old_batch_pass(team: Team) -> None:
    member = team.join()
    await team.hold(member)
    old = member.epochs(["orders/1"])
    async with connect(team.engine) as connection:
        await member.give_up(connection, ["orders/1"])
    await team.hold(member)
    async with begin(team.engine) as connection:
        await member.check(connection, member.epochs(["orders/1"]))
        assert member.renew_in > 0
        with pytest.raises(LaneLost):
            await member.check(connection, old)
        assert member.renew_in == 0


async def test_a_lane_whose_batch_is_being_committed_is_taken_after_that(team: Team) -> None:
    """And the others are taken at once: nobody waits."""
    slow, other = team.join(), team.join()
    await team.hold(slow)
    epochs = slow.epochs(["orders/1"])
    async with begin(team.engine) as connection:
        await slow.check(connection, epochs)
        await team.hold(slow)  # its own batch does not keep it from renewing
        await team.expire(slow)
        async with asyncio.timeout(5):
            await team.hold(other)
        assert sorted(other.held) == sorted(set(LANES) - {"orders/1"})
        assert other.renew_in == pytest.approx(0.25)
        await connection.execute(_EFFECT, {"lane": "orders/1", "epoch": epochs["orders/1"]})
    await team.hold(other)
    assert other.held["orders/1"] == 2


async def test_what_a_transaction_works_at_is_not_given_up(team: Team) -> None:
    member = team.join()
    await team.hold(member)
    async with begin(team.engine) as connection, connect(team.engine) as elsewhere:
        await member.check(connection, member.epochs(["orders/1"]))
        async with asyncio.timeout(5):
            await member.give_up(elsewhere, ["orders/1", "orders/2", "no/3"])
    assert set(LANES) - member.held.keys() == {"orders/2"}


# -- races -------------------------------------------------------------------------------------------------------------


class Interrupted(Connection):
    """Something happens before, or instead of hearing the answer to, the statement that takes lanes."""

    def __init__(self, connection: Connection, before: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(connection.driver)
        self._before = before

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        if statement is lane_rows.CHANGE and self._before:
            await self._before()
        found = await super().execute(statement, parameters)
        if statement is lane_rows.CHANGE and not self._before:
            raise ConnectionResetError
        return found


async def test_a_newcomer_that_was_faster_keeps_what_it_took(team: Team) -> None:
    first, second = team.join(), team.join()
    team.clock.now += 1
    async with connect(team.engine) as connection:
        await first.hold(Interrupted(connection, lambda: team.hold(second)))
    assert len(second.held) == 12, "the first one stands among the members already"
    assert sorted([*first.held, *second.held]) == sorted(LANES)
    await team.settle([first, second])


async def test_who_is_paused_before_it_takes_and_given_up_for_dead_takes_nothing_for_good(team: Team) -> None:
    paused, other = team.join(), team.join()

    async def meanwhile() -> None:
        await team.expire(paused)
        await team.hold(other)

    team.clock.now += 1
    async with connect(team.engine) as connection:
        assert not await paused.hold(Interrupted(connection, meanwhile))
    assert sorted(other.held) == sorted(LANES)
    await team.settle([paused, other])


async def test_an_answer_that_was_lost_is_asked_for_again(team: Team) -> None:
    member = team.join()
    team.clock.now += 1
    async with connect(team.engine) as connection:
        with pytest.raises(ConnectionResetError):
            await member.hold(Interrupted(connection))
    assert (member.held, member.renew_in) == ({}, 0)
    await team.hold(member)
    assert set(member.held.values()) == {1}


async def test_one_that_renews_at_this_moment_keeps_its_lanes(team: Team) -> None:
    """Its time was over, and the other one does not wait to hear how that ends."""
    late, other = team.join(), team.join()
    await team.hold(late)
    await team.expire(late)
    async with begin(team.engine) as renewing:
        team.clock.now += 1
        await late.hold(renewing)
        async with asyncio.timeout(5):
            await team.hold(other)
        assert other.held == {}
    assert set(late.held.values()) == {1}
    await team.hold(late)
    assert len(late.held) == 12
    await team.settle([late, other])


async def test_many_members_that_ask_at_once_never_deadlock(team: Team) -> None:
    before = await deadlocks(team)
    members = [team.join() for _ in range(16)]
    for _ in range(20):
        await asyncio.gather(*(team.hold(member) for member in members))
        for member in random.Random(1).sample(members, 4):
            await (team.expire(member) if member.held else team.release(member))
    assert await deadlocks(team) == before
    await team.settle(members)


async def deadlocks(team: Team) -> list[Any]:
    await team.execute("SELECT pg_stat_force_next_flush()")
    return await team.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@pytest.mark.parametrize(("fenced", "seed"), [(True, 0), (True, 1), (True, 2), (False, 0)])
async def test_in_a_thousand_random_steps_no_lane_has_two_owners_and_no_old_epoch_an_effect(
    team: Team, fenced: bool, seed: int
) -> None:
    """Five members at the same time, that hold, write, leave, and are paused for longer than their lease. Without the
    fence effects of an old epoch follow newer ones, or this test would prove nothing."""
    lost = 0

    async def life(place: int) -> None:
        nonlocal lost
        decide = random.Random(f"{seed}/{place}")
        member = team.join()
        batch: dict[str, int] = {}
        for _ in range(200):
            step = decide.random()
            if step < 0.35:
                await team.hold(member)
            elif step < 0.85:
                # A batch that was taken before may be written only now.
                epochs, batch = batch, member.epochs(decide.sample(sorted(member.held), min(3, len(member.held))))
                try:
                    await team.effect(member, epochs, fenced=fenced)
                except LaneLost:
                    lost += 1
            elif step < 0.95:
                await team.expire(member)
            elif step < 0.98:
                await team.release(member)
            else:
                killed, member, batch = member, team.join(instance=f"order-{place % 4}"), {}
                await team.hold(member)  # and the lease of the one before is not over yet
                await team.expire(killed)

    before = await deadlocks(team)
    await asyncio.gather(*(life(place) for place in range(5)))
    assert await deadlocks(team) == before
    effects = await team.execute("SELECT lane, epoch FROM effects ORDER BY id")
    newest: dict[str, int] = {}
    disorder = 0
    for lane, epoch in effects:
        disorder += epoch < newest.get(lane, 0)
        newest[lane] = max(epoch, newest.get(lane, 0))
    assert len(effects) > 200
    assert (disorder == 0) is fenced, disorder
    assert (lost > 0) is fenced
    assert max(newest.values()) > 10, "lanes have changed their owners often"
