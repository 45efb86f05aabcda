"""The consumer service on a real PostgreSQL: the REST API, verification, notifications."""

import asyncio
from typing import Any

import httpx
import pytest
from ftgo_consumer.messaging.command_handlers import COMMANDS
from ftgo_contracts.channels import CONSUMER_COMMANDS, CREATE_ORDER_REPLIES
from ftgo_contracts.consumer.commands import NotifyConsumer, VerifyConsumer
from ftgo_contracts.money import Money
from ftgo_messaging import new_id
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.registry import by_class
from ftgo_messaging.transports.port import Record
from ftgo_service_kit.service import Service
from sqlalchemy import text
from structlog.testing import capture_logs

ANN = {"name": {"firstName": "Ann", "lastName": "Lee"}}


async def registered(http: httpx.AsyncClient, **more: Any) -> str:
    answer = await http.post("/consumers", json=ANN | more)
    assert answer.status_code == 201
    return answer.json()["consumerId"]


def received(command: Any, **headers: str) -> Record:
    every = {m.ID: new_id(), m.SOURCE: "order", m.TYPE: by_class(type(command)).name, m.SAGA_ID: new_id()} | headers
    encoded = [(name, value.encode()) for name, value in every.items()]
    return Record(
        CONSUMER_COMMANDS.name,
        command.consumer_id.encode(),
        encoded,
        codec.encode(command),
        f"{CONSUMER_COMMANDS.name}/0@0",
    )


def verify(consumer: str, total: str) -> Record:
    command = VerifyConsumer(consumer_id=consumer, order_id=new_id(), order_total=Money.of(total))
    return received(command, **{m.REPLY_CHANNEL: CREATE_ORDER_REPLIES.name})


async def handle(service: Service, *records: Record) -> None:
    await BatchProcessor(COMMANDS, service.transactions).process(records)


async def rows(service: Service, query: str, **values: Any) -> list[Any]:
    async with service.engine.connect() as connection:
        return list((await connection.execute(text(query), values)).all())


async def replies(service: Service, command: Record) -> list[tuple[str, str | None]]:
    found = await rows(
        service,
        "SELECT headers->>'type', body FROM outbox WHERE headers->>'inreplyto' = :id",
        id=dict(command.headers)[m.ID].decode(),
    )
    return [(name.rsplit(".", 1)[1], codec.decode(body, dict).get("reason")) for name, body in found]


async def test_a_consumer_is_registered_changed_and_told(service, http):
    answer = await http.post("/consumers", json=ANN | {"email": "ann@example.com", "orderLimit": "50"})
    consumer = answer.json()
    path = answer.headers["location"]
    assert (answer.status_code, path) == (201, f"/consumers/{consumer['consumerId']}")
    assert (await http.get(path)).json() == consumer
    assert consumer == ANN | {
        "consumerId": consumer["consumerId"],
        "email": "ann@example.com",
        "status": "ACTIVE",
        "orderLimit": "50.00",
        "version": 1,
    }
    for _ in range(2):  # a repetition is no change
        blocked = await http.post(f"{path}/block")
        assert (blocked.status_code, blocked.json()["status"], blocked.json()["version"]) == (200, "BLOCKED", 2)
    assert (await http.post(f"{path}/unblock")).json()["status"] == "ACTIVE"
    renamed = await http.put(f"{path}/name", json={"firstName": "Bea", "lastName": "Lee"})
    assert renamed.json() == consumer | {"name": {"firstName": "Bea", "lastName": "Lee"}, "version": 4}
    assert (await http.get(path)).json() == renamed.json()
    told = await rows(
        service,
        "SELECT channel, headers->>'type', headers->>'sequence' FROM outbox WHERE key = :key ORDER BY position",
        key=consumer["consumerId"],
    )
    assert [tuple(row) for row in told] == [
        ("consumer.events", f"ftgo.consumer.{name}", version)
        for name, version in (
            ("ConsumerRegistered", "1"),
            ("ConsumerBlocked", "2"),
            ("ConsumerUnblocked", "3"),
            ("ConsumerRenamed", "4"),
        )
    ]


async def test_the_default_limit(http):
    consumer = await registered(http)
    assert (await http.get(f"/consumers/{consumer}")).json()["orderLimit"] == "1000.00"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": {"firstName": "Ann"}}, "name.lastName"),
        ({"name": {"firstName": "", "lastName": "Lee"}}, "name.firstName"),
        ({"name": {"firstName": "x" * 201, "lastName": "Lee"}}, "name.firstName"),
        ({"name": {"firstName": "a\u0000", "lastName": "Lee"}}, "name.firstName"),
        (ANN | {"nickname": "A"}, "nickname"),
        (ANN | {"email": "nobody"}, "email"),
        (ANN | {"email": "a" * 250 + "@b.cd"}, "email"),
        (ANN | {"orderLimit": 50}, "orderLimit"),
        (ANN | {"orderLimit": "-1"}, "orderLimit"),
        (ANN | {"orderLimit": "1.234"}, "orderLimit"),
        (ANN | {"orderLimit": "\u0663"}, "orderLimit"),
    ],
)
async def test_a_wrong_registration_names_the_field(http, body, field):
    answer = await http.post("/consumers", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert field in [error["field"] for error in answer.json()["errors"]]


async def test_an_unknown_consumer(http):
    path = f"/consumers/{new_id()}"
    answers = [
        await http.get(path),
        await http.post(f"{path}/block"),
        await http.post(f"{path}/unblock"),
        await http.put(f"{path}/name", json=ANN["name"]),
    ]
    assert [(a.status_code, a.json()["type"]) for a in answers] == [(404, "urn:ftgo:consumer-not-found")] * 4


async def test_verification_in_one_batch(service, http):
    able, blocked = await registered(http, orderLimit="50.00"), await registered(http)
    await http.post(f"/consumers/{blocked}/block")
    commands = [verify(able, "50.00"), verify(able, "50.01"), verify(blocked, "1.00"), verify(new_id(), "1.00")]
    await handle(service, *commands)
    failed = "ConsumerVerificationFailed"
    assert [await replies(service, command) for command in commands] == [
        [("ConsumerVerified", None)],
        [(failed, "LIMIT_EXCEEDED")],
        [(failed, "BLOCKED")],
        [(failed, "UNKNOWN")],
    ]
    await handle(service, commands[0])  # comes again: answered already
    assert len(await replies(service, commands[0])) == 1


async def test_a_verification_does_not_wait_for_a_change(service, http):
    """Somebody holds the consumer's row; verification reads what is committed."""
    consumer = await registered(http)
    command = verify(consumer, "1.00")
    async with service.engine.begin() as connection:
        await connection.execute(text("SELECT 1 FROM consumers WHERE id = :id FOR UPDATE"), {"id": consumer})
        async with asyncio.timeout(5):
            await handle(service, command)
    assert await replies(service, command) == [("ConsumerVerified", None)]


async def test_a_notification_is_kept_once_and_never_answered(service):
    consumer, order = new_id(), new_id()
    command = received(NotifyConsumer(consumer_id=consumer, order_id=order, text="Your order is approved."))
    with capture_logs() as lines:
        await handle(service, command, command)
        await handle(service, command)
    assert [x for x in lines if x["event"] == "mail.outbound"] == [
        {"event": "mail.outbound", "consumer": consumer, "order": order, "log_level": "info"}
    ]
    query = "SELECT order_id, text FROM outbound_mail WHERE consumer_id = :consumer"
    mails = await rows(service, query, consumer=consumer)
    assert [(str(row[0]), row[1]) for row in mails] == [(order, "Your order is approved.")]
    assert await replies(service, command) == []
