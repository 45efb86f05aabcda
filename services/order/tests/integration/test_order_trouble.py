"""What a client and a replica see when something goes wrong between the request and the commit."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import httpx
import pytest
from ftgo_contracts.channels import CONSUMER_EVENTS, RESTAURANT_EVENTS
from ftgo_contracts.consumer.events import ConsumerBlocked, ConsumerEvent, ConsumerUnblocked, PersonName
from ftgo_contracts.kitchen.events import MenuItem, RestaurantCreated
from ftgo_contracts.money import Money
from ftgo_messaging import Channel, DomainEvent, new_id
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.outbox import writer
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.port import Record
from ftgo_order.messaging.event_handlers import REPLICAS
from ftgo_service_kit.database import WRITES
from ftgo_service_kit.service import Service
from sqlalchemy import text

REFUSED = "a0000000-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
async def restaurant(service: Service) -> str:
    event = RestaurantCreated(
        restaurant_id=new_id(), name="Ajanta", menu_items=(MenuItem("1", "Naan", Money.of("2.50")),)
    )
    await heard(service, record(RESTAURANT_EVENTS, event, event.restaurant_id, 1))
    return event.restaurant_id


_positions = itertools.count()


def record(channel: Channel, event: DomainEvent, subject: str, version: int) -> Record:
    headers = writer.event_message(event, new_id(), "owner", None, subject, version).headers
    pairs = [(k, v.encode()) for k, v in headers.items()]
    return Record(channel.name, subject.encode(), pairs, codec.encode(event), f"{channel.name}/0@{next(_positions)}")


async def heard(service: Service, *records: Record) -> None:
    await BatchProcessor(REPLICAS, service.transactions).process(records)


def body(restaurant: str, consumer: str | None = None) -> dict[str, object]:
    return {
        "consumerId": consumer or new_id(),
        "restaurantId": restaurant,
        "deliveryTime": "2030-01-01T18:00:00Z",
        "deliveryAddress": {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"},
        "lineItems": [{"menuItemId": "1", "quantity": 5}],
    }


async def execute(service: Service, *statements: str) -> None:
    """As the owner of the tables: the service may do no DDL."""
    connection = await asyncpg.connect(service.settings.migration_database_url)
    try:
        async with connection.transaction():
            for statement in statements:
                await connection.execute(statement)
    finally:
        await connection.close()


async def scalar(service: Service, statement: str) -> int:
    async with service.engine.connect() as connection:
        return int((await connection.execute(text(statement))).scalar_one())


@pytest.fixture
async def commit_fails(service: Service) -> AsyncIterator[None]:
    """Everything of the order with the consumer REFUSED can be written, and then its transaction cannot commit."""
    await execute(
        service,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not at commit'; END $$",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        f"WHEN (NEW.consumer_id = '{REFUSED}') EXECUTE FUNCTION refuse()",
    )
    yield
    await execute(service, "DROP TRIGGER refuse ON orders", "DROP FUNCTION refuse")


async def test_a_commit_that_fails_is_not_answered_with_success(
    service: Service, http: httpx.AsyncClient, restaurant: str, commit_fails: None
) -> None:
    """Nor are the requests that would have shared the transaction harmed."""
    consumers = [new_id() for _ in range(5)] + [REFUSED] + [new_id() for _ in range(5)]
    answers = await asyncio.gather(*(http.post("/orders", json=body(restaurant, c)) for c in consumers))
    by_consumer = dict(zip(consumers, answers, strict=True))
    assert by_consumer.pop(REFUSED).status_code == 500
    assert {answer.status_code for answer in by_consumer.values()} == {202}
    for answer in by_consumer.values():
        assert (await http.get(answer.headers["location"])).status_code == 200
    assert (await http.get("/orders", params={"consumerId": REFUSED})).json()["orders"] == []
    assert (
        await scalar(service, f"SELECT count(*) FROM saga_instances WHERE CAST(data AS text) LIKE '%{REFUSED}%'") == 0
    )


async def test_clients_that_go_away_leave_nothing_half_done_and_no_connection(
    service: Service, http: httpx.AsyncClient, restaurant: str
) -> None:
    chance = random.Random(1)
    consumer = new_id()

    async def impatient() -> None:
        try:
            async with asyncio.timeout(chance.uniform(0, 0.05)):
                await http.post("/orders", json=body(restaurant, consumer))
        except TimeoutError:
            return

    await asyncio.gather(*(impatient() for _ in range(300)))

    async def settled_down() -> None:
        idle = "datname = current_database() AND application_name LIKE 'ftgo-order-%' AND state LIKE 'idle in%'"
        assert await scalar(service, f"SELECT count(*) FROM pg_stat_activity WHERE {idle}") == 0
        orders = await scalar(service, f"SELECT count(*) FROM orders WHERE consumer_id = '{consumer}'")
        sagas = f"SELECT count(*) FROM saga_instances WHERE CAST(data AS text) LIKE '%{consumer}%'"
        assert orders == await scalar(service, sagas)

    await eventually(settled_down, within=30)
    writers = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ftgo-order-writes'"
    assert await scalar(service, writers) <= WRITES
    assert (await http.post("/orders", json=body(restaurant))).status_code == 202


@pytest.mark.parametrize("seed", range(5))
async def test_in_whatever_order_and_however_often_news_come_the_replica_ends_the_same(
    service: Service, http: httpx.AsyncClient, seed: int
) -> None:
    chance, consumer = random.Random(seed), new_id()

    def news(version: int) -> Record:
        event: type[ConsumerEvent] = ConsumerBlocked if version % 2 else ConsumerUnblocked
        status = "BLOCKED" if version % 2 else "ACTIVE"
        name = PersonName("Ada", f"Version {version}")
        return record(CONSUMER_EVENTS, event(consumer_id=consumer, name=name, status=status), consumer, version)

    records = [news(version) for version in range(1, 8) for _ in range(2)]
    chance.shuffle(records)
    at = 0
    while at < len(records):
        together = chance.randint(1, 5)
        await heard(service, *records[at : at + together])
        at += together
    replica = (await http.get(f"/consumers/{consumer}")).json()
    assert (replica["version"], replica["status"], replica["name"]["lastName"]) == (7, "BLOCKED", "Version 7")


async def test_an_event_far_ahead_of_its_replica_does_not_make_that_deaf(
    service: Service, http: httpx.AsyncClient
) -> None:
    consumer, restaurant = new_id(), new_id()

    def news(name: str, version: int, **headers: str) -> Record:
        event = ConsumerUnblocked(consumer_id=consumer, name=PersonName("Ada", name), status="ACTIVE")
        made = record(CONSUMER_EVENTS, event, consumer, min(version, 999_999_999))
        changed = dict(made.headers) | {m.SEQUENCE: str(version).encode()}
        return replace(made, headers=list(changed.items()))

    def menu(price: str, version: int) -> Record:
        event = RestaurantCreated(
            restaurant_id=restaurant, name="Ajanta", menu_items=(MenuItem("1", "Naan", Money.zero()),)
        )
        made = record(RESTAURANT_EVENTS, event, restaurant, version)
        return replace(made, body=(made.body or b"").replace(b"0.00", price.encode()))

    await heard(service, news("first", 500), menu("2.50", 500))  # of both the topic has lost the beginning
    lies = [news("forged", v) for v in (1501, 999_999_999, 2_147_483_647)]
    lies += [menu("-2.50", 501), menu("2.50", 1501), menu("12345678901.00", 501)]
    before = await scalar(service, "SELECT count(*) FROM dead_letters")
    await heard(service, *lies)
    assert await scalar(service, "SELECT count(*) FROM dead_letters") == before + len(lies)
    await heard(service, news("second", 501), menu("3.50", 501), news("with a gap", 1501), menu("4.50", 1501))
    replica = (await http.get(f"/consumers/{consumer}")).json()
    assert (replica["version"], replica["name"]["lastName"]) == (1501, "with a gap")
    known = (await http.get(f"/restaurants/{restaurant}")).json()
    assert (known["version"], known["menu"]["menuItems"][0]["price"]) == (1501, "4.50")
