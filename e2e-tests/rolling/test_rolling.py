"""Every process of every service is restarted in turn while orders come in, with two instances of each service.

The client uses both instances of a service and knows one thing only: who refuses a connection was not asked, so another
may be. Nothing else is repeated: no answer may be a 5xx, and none may be missing.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_local.kafka import Kafka
from ftgo_local.platform import Platform
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_local.services import SERVICES, Service, ftgo_services, service_environment
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.kafka.topics import PARTITIONS, ensure_topics

INSTANCES = ("a", "b")
ORDERS_A_SECOND = 8
CONSUMERS = 10
MENU = [{"id": "1", "name": "Lasagne", "price": "12.80"}]
ADDRESS = {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"}


class Client:
    """Takes the instances of a service in turn."""

    def __init__(self, http: httpx.AsyncClient, fleet: dict[str, list[Service]]) -> None:
        self._http = http
        self._fleet = fleet
        self._turn = itertools.count()
        self.statuses: Counter[int] = Counter()
        self.refused = 0

    async def ask(self, method: str, service: str, path: str, body: Any = None) -> httpx.Response:
        turn = next(self._turn)
        for instance in range(turn, turn + 20 * len(INSTANCES)):
            url = self._fleet[service][instance % len(INSTANCES)].url
            try:
                answer = await self._http.request(method, f"{url}{path}", json=body)
            except httpx.ConnectError:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            self.statuses[answer.status_code] += 1
            return answer
        raise AssertionError(f"no instance of {service} takes connections")


@pytest.fixture
async def dsns(postgres: Postgres, kafka: Kafka) -> dict[str, str]:
    await ensure_topics(kafka.bootstrap, [c.name for c in ALL_CHANNELS], PARTITIONS)
    await postgres.create_services(SERVICES)
    return {service: postgres.service_dsn(service) for service in SERVICES}


@pytest.fixture
async def fleet(
    dsns: dict[str, str], kafka: Kafka, platform: Platform, tmp_path: Path
) -> AsyncIterator[dict[str, list[Service]]]:
    """Two instances of each service, ready."""
    fleet: dict[str, list[Service]] = {}
    for spec in ftgo_services():
        fleet[spec.name] = []
        for instance in INSTANCES:
            port = free_port()
            environment = service_environment(spec.name, port, dsns[spec.name], kafka.bootstrap)
            environment |= {"FTGO_INSTANCE": f"host-{instance}", f"FTGO_{spec.name.upper()}_POOL_SIZE": "5"}
            log = platform.state.logs / f"{spec.name}-{instance}.log"
            fleet[spec.name].append(Service(spec, port, environment, log, tmp_path))
    every = [service for services in fleet.values() for service in services]
    try:
        await asyncio.gather(
            *(services[0].migrate(platform.postgres.owner_dsn(name)) for name, services in fleet.items())
        )
        for service in every:
            await service.start()
        await asyncio.gather(*(service.wait_until_ready() for service in every))
        yield fleet
    finally:
        await asyncio.gather(*(asyncio.to_thread(service.stop) for service in every))


@pytest.fixture
async def client(fleet: dict[str, list[Service]]) -> AsyncIterator[Client]:
    # A connection for each request: one that was idle may be closed at the moment in which it is used again.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=30, trust_env=False, limits=limits) as http:
        yield Client(http, fleet)


async def known(client: Client, service: str, path: str) -> None:
    async def check() -> None:
        assert (await client.ask("GET", service, path)).status_code == 200

    await eventually(check, within=30, every=0.1)


async def consumer(client: Client, number: int) -> str:
    person = {"name": {"firstName": "Rolf", "lastName": f"Number {number}"}, "orderLimit": "100.00"}
    consumer_id = str((await client.ask("POST", "consumer", "/consumers", person)).json()["consumerId"])
    await known(client, "accounting", f"/accounts/{consumer_id}")
    limit = {"creditLimit": "999999.00"}
    assert (await client.ask("PUT", "accounting", f"/accounts/{consumer_id}/credit-limit", limit)).is_success
    await known(client, "order", f"/consumers/{consumer_id}")
    return consumer_id


async def fetch(dsn: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_request_fails_and_no_effect_repeats_while_everything_restarts(
    fleet: dict[str, list[Service]], client: Client, dsns: dict[str, str]
) -> None:
    restaurant = {"name": "Rolling Rice", "address": ADDRESS, "menu": {"menuItems": MENU}}
    restaurant_id = (await client.ask("POST", "kitchen", "/restaurants", restaurant)).json()["id"]
    await known(client, "order", f"/restaurants/{restaurant_id}")
    consumers = await asyncio.gather(*(consumer(client, n) for n in range(CONSUMERS)))
    client.statuses.clear()
    rolling = asyncio.create_task(roll(fleet))
    orders: list[asyncio.Task[str]] = []
    while not rolling.done():
        body = {
            "consumerId": consumers[len(orders) % CONSUMERS],
            "restaurantId": restaurant_id,
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds"),
            "deliveryAddress": ADDRESS,
            "lineItems": [{"menuItemId": "1", "quantity": 1}],
        }
        orders.append(asyncio.create_task(order(client, body)))
        await asyncio.sleep(1 / ORDERS_A_SECOND)
    await rolling
    ids = await asyncio.gather(*orders)
    assert len(set(ids)) == len(orders) > 20
    assert set(client.statuses) == {202}
    assert client.refused  # the restarts were noticed at all

    async def all_approved() -> None:
        states = await fetch(dsns["order"], "SELECT state, count(*) FROM orders GROUP BY 1")
        assert states == [("APPROVED", len(orders))]

    await eventually(all_approved, within=60, every=0.5)
    per_order = await fetch(
        dsns["accounting"],
        "SELECT count(*), count(DISTINCT order_id) FROM account_entries WHERE type = 'PAYMENT_AUTHORIZED'",
    )
    assert per_order == [(len(orders), len(orders))]
    assert await fetch(dsns["kitchen"], "SELECT count(*) FROM tickets") == [(len(orders),)]
    for service in SERVICES:
        assert await fetch(dsns[service], "SELECT count(*) FROM dead_letters") == [(0,)]


async def order(client: Client, body: dict[str, Any]) -> str:
    answer = await client.ask("POST", "order", "/orders", body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["orderId"])


async def roll(fleet: dict[str, list[Service]]) -> None:
    """One instance after the other of each service; the services side by side, which takes a quarter of the time."""

    async def restart(services: list[Service]) -> None:
        for service in services:
            await asyncio.to_thread(service.stop)
            await service.start()
            await service.wait_until_ready()

    await asyncio.gather(*(restart(services) for services in fleet.values()))
