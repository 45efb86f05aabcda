"""Each service, and the broker, is killed while sagas are under way. No order that was accepted is lost, all are
settled; on any broker."""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pytest
from ftgo_local.scenes.control import Control
from ftgo_local.scenes.stage import Stage, Unexpected, expect

ROUNDS = 10
BROKER_ROUNDS = 4
SERVICES = ("consumer", "kitchen", "accounting", "order")
ORDERS_A_ROUND = 8


# Where leases divide the lanes, those of a killed member come back when its time is over: up to 10 s a round.
@pytest.mark.timeout(300)
async def test_no_accepted_order_is_lost_when_services_are_killed(stage: Stage, control: Control) -> None:
    await stage.restaurant()
    before = await _books(control)
    orders: dict[str, str] = {}
    for round_number in range(ROUNDS):
        shift = round_number % len(SERVICES)
        victims = [*SERVICES[shift:], *SERVICES[:shift]]
        consumers = [await stage.consumer() for _ in range(ORDERS_A_ROUND)]
        accepted = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(_order_until_accepted(stage, consumer, accepted)) for consumer in consumers]
        for victim in victims:
            # The order that was accepted just now is somewhere in its saga.
            await accepted.acquire()
            control.kill(victim)
        orders |= dict(zip(await asyncio.gather(*tasks), consumers, strict=True))
        for service in SERVICES:
            await stage.until(lambda service=service: _ready(stage, service))  # type: ignore[misc]
    assert len(orders) == ROUNDS * ORDERS_A_ROUND
    await _all_settled(stage, orders)
    after = await _books(control)
    for service in SERVICES:
        assert after[service].restarts >= before[service].restarts + ROUNDS
        assert after[service].dead_letters == before[service].dead_letters


@pytest.mark.timeout(300)
async def test_no_accepted_order_is_lost_when_the_broker_is_killed(stage: Stage, control: Control) -> None:
    broker = control.broker
    if broker is None:
        pytest.skip("needs a broker that may be killed")
    for service in SERVICES:
        await stage.until(lambda service=service: _ready(stage, service))  # type: ignore[misc]
    await stage.restaurant()
    before, restarts = await _books(control), control.state.units[broker].restarts
    orders: dict[str, str] = {}
    for _ in range(BROKER_ROUNDS):
        consumers = [await stage.consumer() for _ in range(ORDERS_A_ROUND)]
        accepted = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(_order_until_accepted(stage, consumer, accepted)) for consumer in consumers]
        await accepted.acquire()
        killed = control.kill(broker)
        orders |= dict(zip(await asyncio.gather(*tasks), consumers, strict=True))
        await stage.until(lambda killed=killed: _another(control, broker, killed))  # type: ignore[misc]
        for service in SERVICES:
            await stage.until(lambda service=service: _ready(stage, service))  # type: ignore[misc]
    assert len(orders) == BROKER_ROUNDS * ORDERS_A_ROUND
    await _all_settled(stage, orders)
    assert control.state.units[broker].restarts == restarts + BROKER_ROUNDS
    assert await _books(control) == before


async def _all_settled(stage: Stage, orders: Mapping[str, str]) -> None:
    """Once each: by the ticket, and by the consumer's account."""
    for order, consumer in orders.items():
        await stage.settled(order, "APPROVED")
        assert (await stage.ticket(order))["state"] == "AWAITING_ACCEPTANCE"
        account = await stage.account(consumer)
        assert account["authorized"] == "31.60"
        assert [entry["type"] for entry in account["entries"]].count("PAYMENT_AUTHORIZED") == 1


@dataclass(frozen=True)
class Book:
    restarts: int
    dead_letters: int


async def _books(control: Control) -> dict[str, Book]:
    units = control.state.units
    return {s: Book(units[s].restarts, await control.count(s, "dead_letters")) for s in SERVICES}


async def _order_until_accepted(stage: Stage, consumer: str, accepted: asyncio.Semaphore) -> str:
    """Ask again, under the same id, as long as nobody answers; as a careful client does."""
    order = str(uuid.uuid4())
    body = await stage.order_for(consumer)

    async def ask() -> None:
        try:
            answer = await stage.client.put(f"{stage.urls.order}/orders/{order}", json=body)
        except httpx.TransportError as error:
            raise Unexpected(f"no answer: {error!r}") from error
        expect(answer.status_code in {200, 202}, "an accepted order", answer.text)

    await stage.until(ask)
    accepted.release()
    return order


async def _another(control: Control, unit: str, killed: int) -> None:
    """The supervisor has noticed, and runs another process."""
    found = control.state.units[unit]
    expect(found.status == "running" and found.pid != killed, f"{unit} to run again", vars(found))


async def _ready(stage: Stage, service: str) -> None:
    try:
        answer = await stage.client.get(f"{getattr(stage.urls, service)}/readyz")
    except httpx.TransportError as error:
        raise Unexpected(f"no answer: {error!r}") from error
    expect(answer.status_code == 200, f"{service} to be ready", answer.text)
