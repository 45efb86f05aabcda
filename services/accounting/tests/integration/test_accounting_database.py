"""Accounting on a real PostgreSQL: concurrent payments, the ledger, the REST API."""

import asyncio

import pytest
from ftgo_accounting.adapters.queries import statement_of
from ftgo_accounting.adapters.tables import ACCOUNTS, account_entries, entry_from_row
from ftgo_accounting.domain.account import fold
from ftgo_accounting.messaging.command_handlers import COMMANDS
from ftgo_accounting.messaging.event_handlers import EVENTS
from ftgo_contracts.accounting.commands import AuthorizePayment, ReverseAuthorization, ReviseAuthorization
from ftgo_contracts.channels import ACCOUNTING_COMMANDS, CREATE_ORDER_REPLIES
from ftgo_contracts.consumer.events import ConsumerRegistered, PersonName
from ftgo_contracts.money import Money
from ftgo_messaging import new_id
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.registry import by_class
from ftgo_messaging.outbox import writer
from ftgo_messaging.transaction import rows
from ftgo_messaging.transports.port import Record
from ftgo_service_kit.service import Service
from sqlalchemy import select, text


def received(body, **headers: str) -> Record:
    every = {m.ID: new_id(), m.SOURCE: "order", m.TYPE: by_class(type(body)).name, m.SAGA_ID: new_id()} | headers
    encoded = [(k, v.encode()) for k, v in every.items()]
    return Record(
        ACCOUNTING_COMMANDS.name,
        body.consumer_id.encode(),
        encoded,
        codec.encode(body),
        f"{ACCOUNTING_COMMANDS.name}/0@0",
    )


def authorize(consumer: str, amount: str, order: str | None = None) -> Record:
    command = AuthorizePayment(consumer_id=consumer, order_id=order or new_id(), amount=Money.of(amount))
    return received(command, **{m.REPLY_CHANNEL: CREATE_ORDER_REPLIES.name})


async def handle(service: Service, *records: Record) -> None:
    await BatchProcessor(COMMANDS, service.transactions).process(records)


async def replies(service: Service, order: Record) -> list[str]:
    message_id = dict(order.headers)[m.ID].decode()
    query = text("SELECT headers->>'type' FROM outbox WHERE headers->>'inreplyto' = :id")
    async with service.engine.connect() as connection:
        return [row[0] for row in await connection.execute(query, {"id": message_id})]


async def test_authorizations_at_once_never_exceed_the_limit(service):
    """Thirty payments of 100.00 in ten transactions at once, on an account that is opened by whichever comes first."""
    consumer = new_id()
    commands = [authorize(consumer, "100.00") for _ in range(30)]
    await asyncio.gather(*(handle(service, *commands[i::10]) for i in range(10)))
    outcomes = sorted([(await replies(service, c))[0].rsplit(".", 1)[1] for c in commands])
    assert outcomes == ["PaymentAuthorized"] * 10 + ["PaymentDeclined"] * 20
    statement = await statement_of(consumer, service.engine)
    assert statement is not None
    assert (statement.account.authorized, statement.account.available) == (Money.of("1000.00"), Money.zero())


async def test_payment_and_registration_at_once_open_one_account(service):
    async def both(consumer: str) -> None:
        event = ConsumerRegistered(consumer_id=consumer, name=PersonName("A", "B"), status="ACTIVE")
        message = writer.event_message(event, new_id(), "consumer", None, consumer, 1)
        pairs = [(k, v.encode()) for k, v in message.headers.items()]
        news = Record(message.channel, message.key.encode(), pairs, message.body, f"{message.channel}/0@0")
        registered = BatchProcessor(EVENTS, service.transactions).process([news])
        await asyncio.gather(handle(service, authorize(consumer, "10.00")), registered)

    consumers = [new_id() for _ in range(8)]
    await asyncio.gather(*map(both, consumers))
    for consumer in consumers:
        statement = await statement_of(consumer, service.engine)
        assert statement is not None
        assert [entry.type for entry, _ in statement.entries] == ["PAYMENT_AUTHORIZED", "ACCOUNT_OPENED"]
    async with service.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM dead_letters"))).scalar_one() == 0


async def test_the_stored_balance_is_the_fold_of_the_stored_entries(service):
    consumer = new_id()
    orders = [new_id() for _ in range(6)]
    for index, order in enumerate(orders):
        revision = ReviseAuthorization(consumer_id=consumer, order_id=order, amount=Money.of(f"{20 * index}.50"))
        reversal = ReverseAuthorization(consumer_id=consumer, order_id=orders[index // 2])
        await handle(service, authorize(consumer, "60.10", order), received(revision), received(reversal))
    stored = select(account_entries).where(account_entries.c.consumer_id == consumer)
    async with service.engine.connect() as connection:
        entries = (await connection.execute(stored.order_by(account_entries.c.version))).mappings().all()
        balance = rows.select_by_key(ACCOUNTS.table, ACCOUNTS.key, False)
        row = (await connection.execute(balance, {"keys": [consumer]})).mappings().one()
    assert len(entries) == 1 + 6 + 6 + 3  # opened, authorized, revised, reversed (each of three orders once)
    assert fold(consumer, [entry_from_row(dict(entry)) for entry in entries]) == ACCOUNTS.from_row(dict(row))


async def test_the_account_over_http(service, http):
    consumer, order = new_id(), new_id()
    assert (await http.get(f"/accounts/{consumer}")).status_code == 404
    assert (await http.post(f"/accounts/{consumer}/disable")).status_code == 404
    await handle(service, authorize(consumer, "61.70", order))
    account = (await http.get(f"/accounts/{consumer}")).json()
    newest = account["entries"][0]
    assert {k: account[k] for k in account if k != "entries"} == {
        "accountId": consumer,
        "consumerId": consumer,
        "state": "ENABLED",
        "creditLimit": "1000.00",
        "authorized": "61.70",
        "available": "938.30",
        "version": 2,
    }
    assert (newest["type"], newest["amount"], newest["orderId"]) == ("PAYMENT_AUTHORIZED", "61.70", order)
    changed = await http.put(f"/accounts/{consumer}/credit-limit", json={"creditLimit": "50"})
    assert (changed.json()["creditLimit"], changed.json()["available"]) == ("50.00", "0.00")
    assert (await http.post(f"/accounts/{consumer}/disable")).json()["state"] == "DISABLED"
    assert (await http.post(f"/accounts/{consumer}/enable")).json()["state"] == "ENABLED"


@pytest.mark.parametrize("limit", ["-1", "1.234", "abc", 5, None])
async def test_a_wrong_limit_is_refused(http, limit):
    answer = await http.put(f"/accounts/{new_id()}/credit-limit", json={"creditLimit": limit})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "creditLimit")


async def test_only_the_newest_hundred_entries_are_told(service, http):
    consumer = new_id()
    await handle(service, *(authorize(consumer, "0.01") for _ in range(120)))
    entries = (await http.get(f"/accounts/{consumer}")).json()["entries"]
    assert [entry["version"] for entry in entries] == list(range(121, 21, -1))
