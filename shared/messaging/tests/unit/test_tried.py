"""How often a transaction is tried whose row was there already."""

import asyncio

import pytest
from ftgo_messaging.consumer.batch import tried
from ftgo_messaging.runtime.errors import TransientError


class Race(Exception):
    sqlstate = "23505"


class Work:
    """Fails in this order, and then no more."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []

    async def pause(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    return taken


async def test_a_race_is_run_again_after_a_pause_that_grows(pauses: list[float]) -> None:
    work = Work(Race(), Race(), Race())
    assert await tried(work.run) is None
    assert work.runs == 4
    assert len(pauses) == 3
    assert all(longest / 2 <= taken <= longest for taken, longest in zip(pauses, (0.05, 0.1, 0.2), strict=True))


async def test_what_looks_like_a_race_each_time_is_a_bug(pauses: list[float]) -> None:
    last = Race()
    work = Work(Race(), Race(), Race(), last)
    assert await tried(work.run) is last
    assert work.runs == 4


async def test_another_error_stays_at_once(pauses: list[float]) -> None:
    work = Work(ValueError("bug"))
    assert isinstance(await tried(work.run), ValueError)
    assert (work.runs, pauses) == (1, [])


async def test_an_outage_is_raised() -> None:
    with pytest.raises(TransientError):
        await tried(Work(TransientError("away")).run)
