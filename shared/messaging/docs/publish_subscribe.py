"""Publish/subscribe: an event goes to everyone who listens, each under a consumer name of its own.

python docs/publish_subscribe.py postgresql://... 127.0.0.1:9092
"""

import asyncio
import sys

from ftgo_messaging import Channel, DomainEvent, Kind, MessageHandlers, Operation, UnitOfWork, messaging_tables
from ftgo_messaging.testing.service import running
from sqlalchemy import MetaData

TABLES = MetaData()
messaging_tables(TABLES)
PARCELS = Channel("parcel.events", Kind.EVENT)


@PARCELS.carries("example.ParcelArrived")
class ParcelArrived(DomainEvent, frozen=True, kw_only=True):
    place: str


async def main(database_url: str, broker_url: str) -> list[str]:
    """A parcel arrives; billing and statistics hear of it, once each. Returns who heard what."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    def listener(name: str) -> MessageHandlers:
        handlers = MessageHandlers(name)

        @handlers.handle(ParcelArrived)
        async def arrived(event: ParcelArrived, uow: UnitOfWork) -> None:
            heard.put_nowait(f"{name}: {event.place}")

        return handlers

    async def publish(uow: UnitOfWork) -> None:
        uow.publish(ParcelArrived(place="Oakland"), subject="parcel-7", version=1)

    listening = [(PARCELS, listener("billing")), (PARCELS, listener("statistics"))]
    async with running(database_url, broker_url, TABLES, listening) as transactions:
        await transactions.run_operation(Operation(publish))
        async with asyncio.timeout(60):
            return sorted([await heard.get(), await heard.get()])


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:])))
