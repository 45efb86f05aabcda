"""Whole services on the broker: conversations, and what cannot be handled. With PostgreSQL."""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.gathering.collector import Collector, Gathering
from ftgo_messaging.messages.channel import Channel, Poison
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.registry import reply_type
from ftgo_messaging.messages.replies import Failure, Reply, Success
from ftgo_messaging.runtime.connection import connect as connection_of
from ftgo_messaging.runtime.errors import DomainError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.service import running_on
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.testing.suite.scene import GATHERINGS, TABLES, new_steps, tables
from ftgo_messaging.transaction.transactions import Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork


class Services:
    # -- conversations -------------------------------------------------------------------------------------------------

    async def test_request_and_reply(self, wire: Wire, database: str) -> None:
        """A command is answered on the reply channel that it names: with a success, and with a refusal."""
        requests, replies = _channel(Kind.COMMAND), _channel(Kind.REPLY)
        told: asyncio.Queue[Reply] = asyncio.Queue()

        @requests.carries(f"{requests.name}.Ask", replies_to=(replies,))
        class Ask(Command[Success], frozen=True, kw_only=True):
            key: str
            cents: int

        asked, answers = MessageHandlers(wire.name("asked")), MessageHandlers(wire.name("answers"))

        @asked.handle(Ask)
        async def ask(command: Any, uow: UnitOfWork) -> Success:
            if command.cents > 100:
                raise DomainError
            return Success()

        async def answered(reply: Reply, uow: UnitOfWork) -> None:
            told.put_nowait(reply)

        answers.handle(Success)(answered)
        answers.handle(Failure)(answered)

        async def send(uow: UnitOfWork) -> None:
            for cents in (70, 700):
                uow.send(Ask(key="ann", cents=cents), reply_channel=replies, saga_type="suite", saga_id="ann")

        async with running_on(database, wire.transport(), TABLES, [(requests, asked), (replies, answers)]) as service:
            await service.run_operation(Operation(send))
            async with asyncio.timeout(wire.patience):
                assert [await told.get(), await told.get()] == [Success(), Failure()]

    async def test_one_way_notification(self, wire: Wire, database: str) -> None:
        """A command that asks for no reply gets none, though its handler gives one."""
        notices = _channel(Kind.COMMAND)
        told: asyncio.Queue[str] = asyncio.Queue()

        @notices.carries(f"{notices.name}.Notify")
        class Notify(Command[Success], frozen=True, kw_only=True):
            key: str

        handlers = MessageHandlers(wire.name("mail"))
        sent: list[Message] = []

        @handlers.handle(Notify)
        async def notify(command: Any, uow: UnitOfWork) -> Success:
            told.put_nowait(command.key)
            return Success()

        async def send(uow: UnitOfWork) -> None:
            for who in ("ann", "bob"):
                uow.send(Notify(key=who))

        async with running_on(database, wire.transport(), TABLES, [(notices, handlers)]) as service:
            service.after_commit.append(lambda uow: sent.extend(uow.messages))
            await service.run_operation(Operation(send))
            async with asyncio.timeout(wire.patience):
                assert {await told.get(), await told.get()} == {"ann", "bob"}
        assert [message.channel for message in sent] == [notices.name] * 2

    async def test_publish_and_collect(self, wire: Wire, database: str) -> None:
        """Publish/asynchronous replies: an event goes to all who listen, and two of three answer."""
        wanted, offers = _channel(Kind.EVENT), _channel(Kind.REPLY)
        ends: asyncio.Queue[Gathering] = asyncio.Queue()

        @wanted.carries(f"{wanted.name}.Wanted", replies_to=(offers,))
        class Wanted(DomainEvent, frozen=True, kw_only=True):
            kilos: int

        @reply_type(f"{offers.name}.Offer")
        class Offer(Reply, frozen=True, kw_only=True):
            carrier: str

        def carrier(name: str, most: int) -> MessageHandlers:
            handlers = MessageHandlers(wire.name(name))

            @handlers.handle(Wanted)
            async def asked(event: Any, uow: UnitOfWork) -> Offer | None:
                return Offer(carrier=name) if event.kilos <= most else None

            return handlers

        async def on_end(gathering: Gathering, uow: UnitOfWork) -> None:
            ends.put_nowait(gathering)

        collector = Collector(wire.name("carriage"), GATHERINGS, offers, on_end)

        async def ask(uow: UnitOfWork) -> str:
            within = timedelta(minutes=1)
            return collector.ask(Wanted(kilos=20), uow, subject="parcel", version=1, expected=2, within=within)

        carriers = [carrier("bike", 10), carrier("van", 30), carrier("lorry", 1000)]
        listening = [(offers, collector.handlers(wire.name("offers"), [Offer])), *((wanted, c) for c in carriers)]
        async with running_on(database, wire.transport(), TABLES, listening) as service:
            await service.run_operation(Operation(ask))
            async with asyncio.timeout(wire.patience):
                replies = [answer.reply for answer in (await ends.get()).answers]
        assert {reply.carrier for reply in replies if isinstance(reply, Offer)} == {"van", "lorry"}

    # -- what cannot be handled ----------------------------------------------------------------------------------------

    async def test_one_poison_among_a_thousand(self, wire: Wire, database: str) -> None:
        """It becomes the one dead letter, and 999 are handled."""
        steps = await new_steps(wire, "workers")
        numbers = [(f"entity-{n % 50}", n) for n in range(1000)]
        poison = 500
        async with tables(database) as engine:
            transactions = Transactions(engine, "suite")
            handlers = steps.handlers(wire.name("workers"), "one")
            consumer = ChannelConsumer(
                handlers.consumer, [steps.channel], handlers, transactions, wire.transport(), poison=Poison.GO_ON
            )
            await consumer.start()
            await wire.publish([steps.message(e, -1 if n == poison else n) for e, n in numbers])

            async def handled() -> None:
                assert sorted(await steps.done(engine)) == sorted(x for x in numbers if x[1] != poison)

            try:
                await eventually(handled, within=2 * wire.patience)
            finally:
                await consumer.stop()
            letters = text("SELECT count(*) FROM dead_letters WHERE channel = :channel")
            async with connection_of(engine) as connection:
                assert (await connection.execute(letters, {"channel": steps.channel.name}))[0][0] == 1


def _channel(kind: Kind) -> Channel:
    return Channel(f"suite.{new_id()}", kind, key=(lambda c: str(c.key)) if kind is Kind.COMMAND else None)
