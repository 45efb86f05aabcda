"""Waiting for an order: how long, and woken by what."""

import asyncio

import pytest
from ftgo_messaging.runtime.errors import Overloaded
from ftgo_order.adapters.order_changes import OrderChanges
from ftgo_order.http.waiting import preferred_wait
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ("Wait = 7; x=1", 7),
        ("wait=4, wait=9", 4),
        ("wait=9999999999", 30),
        ("wait=" + "9" * 5000, 30),
        ("wait=0005", 5),
        ('foo="a, wait=2"', 0),
        ('foo="a\\", wait=2", wait=3', 3),
        ("foo; wait=2", 0),
        (", ,wait=2,", 2),
        ('wait="2', 0),
        ('wait="3"', 3),
        ("wait=600", 30),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("nowait=5", 0),
        ("wait=", 0),
    ],
)
def test_preferred_wait(prefer, seconds):
    assert preferred_wait(prefer) == seconds


def waited_for(limit: int = 10, stopping: bool = False) -> OrderChanges:
    """Never reads: nobody is at this address."""
    nowhere = create_async_engine("postgresql+asyncpg://127.0.0.1:1/nowhere")
    return OrderChanges(nowhere, limit, lambda: stopping)


async def test_a_change_wakes_everybody_who_waits_for_that_order():
    changes = waited_for()
    with changes.watch("a") as one, changes.watch("a") as two, changes.watch("b") as other:
        changes.notify(["a", "unwatched"])
        async with asyncio.timeout(0.5):
            await one.wait(60)
            await two.wait(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await other.wait(60)
    assert len(changes) == 0


async def test_a_change_between_reading_and_waiting_is_not_missed():
    changes = waited_for()
    with changes.watch("a") as watch:
        changes.notify(["a"])
        async with asyncio.timeout(0.5):
            await watch.wait(60)


async def test_more_than_the_limit_are_refused_until_one_has_gone():
    changes = waited_for(limit=1)
    with changes.watch("a"), pytest.raises(Overloaded), changes.watch("b"):
        pass
    with changes.watch("b"):
        assert (changes.waiting, len(changes)) == (1, 1)


async def test_a_service_that_stops_ends_all_waiting():
    with waited_for(stopping=True).watch("a") as watch:
        async with asyncio.timeout(3):
            await watch.wait(60)
