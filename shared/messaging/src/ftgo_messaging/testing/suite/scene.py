"""A service as small as the suite needs: numbered commands that leave a row each, in a real database.

As a program, one member of it, until SIGTERM: python -m ftgo_messaging.testing.suite.scene JSON
"""

import asyncio
import importlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.gathering.collector import gatherings, gatherings_table
from ftgo_messaging.messages.channel import Channel, Poison
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.connection import connect as connection_of
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import Transport
from ftgo_messaging.upkeep.tables import messaging_tables

PROGRAM = "ftgo_messaging.testing.suite.scene"
TABLES = MetaData()
messaging_tables(TABLES)
GATHERINGS = gatherings(gatherings_table(TABLES))
steps = Table(
    "steps",
    TABLES,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("channel", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("member", Text, nullable=False),
)


class Steps:
    """A channel of numbered commands; a negative number cannot be handled."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

        @channel.carries(f"{channel.name}.Step")
        class Step(Command[Success], frozen=True, kw_only=True):
            key: str
            entity: str
            number: int

        self.type = Step

    def message(self, entity: str, number: int, key: str = "") -> Message:
        command = self.type(key=key or entity, entity=entity, number=number)
        return writer.command_message(command, new_id(), "suite", None, None, None, None)

    def handlers(self, consumer: str, member: str) -> MessageHandlers:
        handlers = MessageHandlers(consumer)

        async def handle(step: Any, uow: UnitOfWork) -> None:
            if step.number < 0:
                raise ValueError("it cannot be handled")
            row = {"channel": self.channel.name, "entity": step.entity, "number": step.number, "member": member}
            uow.append(steps, row)

        handlers.handle(self.type)(handle)
        return handlers

    async def done(self, engine: AsyncEngine) -> list[tuple[str, int]]:
        """Entity and number of each step that was made, in the order of the transactions of each lane."""
        statement = text("SELECT entity, number FROM steps WHERE channel = :channel ORDER BY id")
        async with connection_of(engine) as connection:
            rows = await connection.execute(statement, {"channel": self.channel.name})
        return [(row[0], row[1]) for row in rows]


def out_of_order(done: Sequence[tuple[str, int]]) -> int:
    highest: dict[str, int] = {}
    wrong = 0
    for entity, number in done:
        wrong += number < highest.get(entity, -1)
        highest[entity] = max(number, highest.get(entity, -1))
    return wrong


async def new_steps(wire: Wire, *readers: str) -> Steps:
    name = (await wire.channel(*readers)).name
    return Steps(Channel(name, Kind.COMMAND, key=lambda command: str(command.key)))


def engine_of(dsn: str) -> AsyncEngine:
    return create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"))


@asynccontextmanager
async def tables(dsn: str) -> AsyncIterator[AsyncEngine]:
    """The tables that are missing are made; the rows of other tests stay, and are told by their channels."""
    engine = engine_of(dsn)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(TABLES.create_all)
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def service_process(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Killed at the end, paused or not."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", PROGRAM, json.dumps(settings))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _main(url: str, dsn: str, consumer: str, channel: str, member: str, package: str = "") -> None:
    """``package``: of the transport, where the scheme of the URL does not tell it."""
    engine = engine_of(dsn)
    transport: Transport = importlib.import_module(package).transport(url) if package else transport_at(url)
    reads = Steps(Channel(channel, Kind.COMMAND, key=lambda command: str(command.key)))
    handlers, transactions = reads.handlers(consumer, member), Transactions(engine, "suite")
    running = ChannelConsumer(
        consumer, [reads.channel], handlers, transactions, transport, max_records=50, poison=Poison.GO_ON
    )
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    await running.start()
    await ending.wait()
    await running.stop()
    await transport.close()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(_main(**json.loads(sys.argv[1])))
