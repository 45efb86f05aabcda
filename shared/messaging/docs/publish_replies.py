"""Publish/asynchronous replies: who can carry this parcel? Offers are collected until two are there, or time is over.

python docs/publish_replies.py postgresql://... 127.0.0.1:9092
"""

import asyncio
import sys
from datetime import timedelta

from ftgo_messaging import (
    Channel,
    Collector,
    DomainEvent,
    Kind,
    MessageHandlers,
    Operation,
    Reply,
    UnitOfWork,
    messaging_tables,
    reply_type,
)
from ftgo_messaging.gathering.collector import Gathering, close_forever, gatherings, gatherings_table
from ftgo_messaging.testing.service import running
from sqlalchemy import MetaData

TABLES = MetaData()
messaging_tables(TABLES)
GATHERINGS = gatherings(gatherings_table(TABLES))
REQUESTS = Channel("carriage.events", Kind.EVENT)
OFFERS = Channel("carriage.offers", Kind.REPLY)


@REQUESTS.carries("example.CarriageWanted", replies_to=(OFFERS,))
class CarriageWanted(DomainEvent, frozen=True, kw_only=True):
    kilos: int


@reply_type("example.Offer")
class Offer(Reply, frozen=True, kw_only=True):
    carrier: str
    cents: int


def carrier(name: str, cents_a_kilo: int, most_kilos: int) -> MessageHandlers:
    handlers = MessageHandlers(name)

    @handlers.handle(CarriageWanted)
    async def wanted(event: CarriageWanted, uow: UnitOfWork) -> Offer | None:
        """Whoever returns nothing does not answer."""
        return Offer(carrier=name, cents=cents_a_kilo * event.kilos) if event.kilos <= most_kilos else None

    return handlers


async def main(database_url: str, broker_url: str) -> list[str]:
    """Two of three carriers take 20 kilos, only one takes 40. Returns how the two gatherings ended."""
    ends: asyncio.Queue[str] = asyncio.Queue()

    async def on_end(gathering: Gathering, uow: UnitOfWork) -> None:
        offers = [answer.reply for answer in gathering.answers]
        cheapest = min((o for o in offers if isinstance(o, Offer)), key=lambda o: o.cents)
        ends.put_nowait(f"{gathering.state}, {len(offers)} offers: {cheapest.carrier} for {cheapest.cents}")

    collector = Collector("carriage", GATHERINGS, OFFERS, on_end)

    def ask(kilos: int, within: timedelta) -> Operation[str]:
        async def body(uow: UnitOfWork) -> str:
            event = CarriageWanted(kilos=kilos)
            return collector.ask(event, uow, subject=f"parcel-{kilos}", version=1, expected=2, within=within)

        return Operation(body)

    carriers = [carrier("bike", 9, 10), carrier("van", 5, 30), carrier("lorry", 7, 1000)]
    listening = [(OFFERS, collector.handlers("offers", [Offer])), *((REQUESTS, c) for c in carriers)]
    closing = lambda transactions: close_forever(collector, transactions, every=0.5)  # noqa: E731
    async with running(database_url, broker_url, TABLES, listening, closing) as transactions:
        async with asyncio.timeout(60):
            await transactions.run_operation(ask(20, timedelta(minutes=1)))
            first = await ends.get()
            await transactions.run_operation(ask(40, timedelta(seconds=5)))
            return [first, await ends.get()]


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:])))
