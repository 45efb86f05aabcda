"""The example of the README, whole: python shared/messaging/docs/example.py DATABASE_URL BROKER_URL"""

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import Any

from ftgo_messaging import (
    Aggregates,
    Channel,
    ChannelConsumer,
    Command,
    DomainError,
    Failure,
    Kind,
    MessageHandlers,
    Operation,
    Reply,
    Success,
    Transactions,
    UnitOfWork,
    messaging_tables,
    transport_at,
)
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from sqlalchemy import Column, Integer, MetaData, Table, Text, text
from sqlalchemy.ext.asyncio import create_async_engine

METADATA = MetaData()
messaging_tables(METADATA)
accounts = Table("accounts", METADATA, Column("name", Text, primary_key=True), Column("cents", Integer, nullable=False))


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    cents: int


ACCOUNTS = Aggregates(accounts, "name", lambda row: Account(**row), lambda a: {"name": a.name, "cents": a.cents})


class NotEnough(DomainError):
    slug = "not-enough"


PAYMENTS = Channel("payments.commands", Kind.COMMAND, key=lambda c: c.account)
REPLIES = Channel("payments.replies", Kind.REPLY)


@PAYMENTS.carries("example.Pay", replies_to=(REPLIES,))
class Pay(Command[Success], frozen=True, kw_only=True):
    account: str
    cents: int


handlers = MessageHandlers("payments")


@handlers.handle(Pay, needs=lambda c: [(ACCOUNTS, c.account)])
async def pay(command: Pay, uow: UnitOfWork) -> Success:
    account = await uow.find(ACCOUNTS, command.account)
    if account is None or account.cents < command.cents:
        raise NotEnough  # discards the writes of this message, answers with a failure
    uow.save(ACCOUNTS, replace(account, cents=account.cents - command.cents))
    return Success()  # reply, effect and duplicate record: one transaction


async def main(database_url: str, broker_url: str) -> list[str]:
    """Ann has 100 cents and pays 70 twice. Returns the two answers, in order."""
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        await connection.execute(text("INSERT INTO accounts VALUES ('ann', 100)"))
    transport = transport_at(broker_url)
    await transport.declare([PAYMENTS, REPLIES], {PAYMENTS.name: ["payments"], REPLIES.name: ["answers"]})
    transactions, wake_up, publisher = Transactions(engine, "example"), WakeUp(), transport.publisher("example")
    transactions.after_commit.append(lambda _: wake_up.ring())
    relay = asyncio.create_task(PollingPublisher(engine, publisher, wake_up).run())

    answers: list[str] = []
    both = asyncio.Event()
    replies = MessageHandlers("answers")

    async def on_answer(reply: Reply, uow: UnitOfWork) -> None:
        answers.append(reply.reason if isinstance(reply, Failure) else "paid")
        if len(answers) == 2:
            both.set()

    replies.handle(Success)(on_answer)
    replies.handle(Failure)(on_answer)
    consumers = [
        ChannelConsumer("payments", [PAYMENTS], handlers, transactions, transport),
        ChannelConsumer("answers", [REPLIES], replies, transactions, transport),
    ]
    for consumer in consumers:
        await consumer.start()

    async def ask(uow: UnitOfWork) -> Any:
        for _ in range(2):
            uow.send(Pay(account="ann", cents=70), reply_channel=REPLIES, saga_type="example", saga_id="ann")

    await transactions.run_operation(Operation(ask))
    async with asyncio.timeout(60):
        await both.wait()

    for consumer in consumers:
        await consumer.stop()
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
    await publisher.close()
    await transport.close()
    await engine.dispose()
    return answers


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:])))
