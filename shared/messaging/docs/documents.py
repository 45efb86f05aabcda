"""Documents: data handed on, without saying what is to be done with it. Of one key the newest comes last.

python docs/documents.py postgresql://... 127.0.0.1:9092
"""

import asyncio
import sys

from ftgo_messaging import Channel, Document, Kind, MessageHandlers, Operation, UnitOfWork, messaging_tables
from ftgo_messaging.testing.service import running
from sqlalchemy import MetaData

TABLES = MetaData()
messaging_tables(TABLES)
PRICES = Channel("price.lists", Kind.DOCUMENT, key=lambda d: d.shop)


@PRICES.carries("example.PriceList")
class PriceList(Document, frozen=True, kw_only=True):
    shop: str
    cents: dict[str, int]


async def main(database_url: str, broker_url: str) -> list[str]:
    """A shop sends its prices of today, and then those of tomorrow. Returns what soap cost, in the order of arrival."""
    prices: asyncio.Queue[int] = asyncio.Queue()
    handlers = MessageHandlers("price-board")

    @handlers.handle(PriceList)
    async def store(document: PriceList, uow: UnitOfWork) -> None:
        prices.put_nowait(document.cents["soap"])

    async def send(uow: UnitOfWork) -> None:
        for cents in (199, 249):
            uow.send_document(PriceList(shop="corner", cents={"soap": cents}))

    async with running(database_url, broker_url, TABLES, [(PRICES, handlers)]) as transactions:
        await transactions.run_operation(Operation(send))
        async with asyncio.timeout(60):
            return [f"soap: {await prices.get()}", f"soap: {await prices.get()}"]


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:])))
