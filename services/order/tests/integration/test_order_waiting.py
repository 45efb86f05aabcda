"""Many clients wait for one order: what that costs, and what they see."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from ftgo_contracts.kitchen.events import MenuItem, RestaurantCreated
from ftgo_contracts.money import Money
from ftgo_local.postgres import Postgres
from ftgo_messaging import Operation, Transactions, new_id
from ftgo_messaging.testing.eventually import eventually
from ftgo_order.adapters.replicas import replicate_restaurant
from ftgo_order.application import order_steps
from ftgo_order.http import waiting
from ftgo_service_kit.service import Service
from sqlalchemy import event

MANY = 200


@pytest.fixture(scope="module")
async def restaurant(service: Service) -> str:
    menu = (MenuItem("1", "Naan", Money.of("2.50")),)
    event = RestaurantCreated(restaurant_id=new_id(), name="Ajanta", menu_items=menu)
    await service.transactions.run_operation(Operation(lambda uow: replicate_restaurant(event, 1, uow)))
    return event.restaurant_id


async def created(http: httpx.AsyncClient, restaurant: str) -> str:
    body = {
        "consumerId": new_id(),
        "restaurantId": restaurant,
        "deliveryTime": "2030-01-01T18:00:00Z",
        "deliveryAddress": {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"},
        "lineItems": [{"menuItemId": "1", "quantity": 5}],
    }
    answer = await http.post("/orders", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["orderId"])


async def approve(service: Service, order_id: str) -> None:
    await service.transactions.run_operation(Operation(lambda uow: order_steps.approve(order_id, uow)))


def states_in(stream: str) -> list[str]:
    """Of the events; comments are left out."""
    data = [line.removeprefix("data: ") for line in stream.split("\n") if line.startswith("data: ")]
    return [json.loads(event)["state"] for event in data]


def waiting_now(service: Service) -> int:
    return int(service.app.state.order_changes.waiting)  # type: ignore[union-attr]


async def wait_for(service: Service, number: int) -> None:
    async def check() -> None:
        assert waiting_now(service) == number

    await eventually(check, within=60)


@asynccontextmanager
async def waiters(service: Service, http: httpx.AsyncClient, order_id: str) -> AsyncIterator[list[asyncio.Task]]:
    """GETs and streams, half of each; all of them wait."""
    path = f"/orders/{order_id}"
    tasks = [asyncio.create_task(http.get(path, headers={"Prefer": "wait=30"})) for _ in range(MANY)]
    tasks += [asyncio.create_task(http.get(f"{path}/events")) for _ in range(MANY)]
    await wait_for(service, len(tasks))
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await wait_for(service, 0)


async def test_one_change_is_read_once_for_all_who_wait(
    service: Service, http: httpx.AsyncClient, restaurant: str
) -> None:
    order_id = await created(http, restaurant)
    async with waiters(service, http, order_id) as tasks:
        reads: list[object] = []
        event.listen(service.engine.sync_engine, "checkout", lambda *_: reads.append(None))
        await approve(service, order_id)
        answers = await asyncio.gather(*tasks)
        # Each kind of waiter needs one; one more may have been under way, and looks for others' changes come beside.
        assert len(reads) <= 10
    assert {answer.json()["state"] for answer in answers[:MANY]} == {"APPROVED"}
    assert all(states_in(answer.text) == ["APPROVAL_PENDING", "APPROVED"] for answer in answers[MANY:])


async def test_the_change_of_another_process_is_seen_too(
    service: Service, http: httpx.AsyncClient, restaurant: str
) -> None:
    order_id = await created(http, restaurant)
    other = Transactions(service.pools.messages, "order")  # it wakes nobody here
    async with waiters(service, http, order_id) as tasks:
        await other.run_operation(Operation(lambda uow: order_steps.approve(order_id, uow)))
        answers = await asyncio.gather(*tasks)
    # A GET that hears of nothing ends after its 30 s, and says so.
    assert {answer.json()["state"] for answer in answers[:MANY]} == {"APPROVED"}


async def test_more_than_may_wait_are_refused_at_once_and_the_others_go_on(
    service: Service, http: httpx.AsyncClient, restaurant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await created(http, restaurant)
    async with waiters(service, http, order_id) as tasks:
        monkeypatch.setattr(service.app.state.order_changes, "limit", len(tasks))  # type: ignore[union-attr]
        for path, headers in ((f"/orders/{order_id}", {"Prefer": "wait=30"}), (f"/orders/{order_id}/events", {})):
            refused = await http.get(path, headers=headers)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["content-type"] == "application/problem+json"
        assert (await http.get(f"/orders/{order_id}")).json()["state"] == "APPROVAL_PENDING"
        tasks.pop().cancel()
        await wait_for(service, len(tasks))
        again = asyncio.create_task(http.get(f"/orders/{order_id}", headers={"Prefer": "wait=30"}))
        await wait_for(service, len(tasks) + 1)
        await approve(service, order_id)
        assert (await again).json()["state"] == "APPROVED"
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}


async def test_streams_go_on_when_the_database_is_back(
    service: Service,
    http: httpx.AsyncClient,
    postgres: Postgres,
    restaurant: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "_KEEP_ALIVE", 0.05)  # each looks for itself, too
    order_id = await created(http, restaurant)
    admin = await asyncpg.connect(postgres.dsn())
    name = "ftgo_order"
    stream = asyncio.create_task(http.get(f"/orders/{order_id}/events"))
    try:
        await wait_for(service, 1)
        await admin.execute(f"ALTER ROLE {name} CONNECTION LIMIT 0")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)

        async def away() -> None:
            assert (await http.get(f"/orders/{order_id}")).status_code == 503

        await eventually(away)
    finally:
        await admin.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
        await admin.close()

    async def approved() -> None:
        try:
            await approve(service, order_id)
        except Exception as error:
            raise AssertionError from error

    await eventually(approved)
    assert states_in((await stream).text) == ["APPROVAL_PENDING", "APPROVED"]
    assert "Traceback" not in "".join(capfd.readouterr())
