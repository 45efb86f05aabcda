"""One-way notification: a command without a reply channel. The sender does not wait, and hears nothing.

python docs/notification.py postgresql://... 127.0.0.1:9092
"""

import asyncio
import sys

from ftgo_messaging import Channel, Command, Kind, MessageHandlers, Operation, Success, UnitOfWork, messaging_tables
from ftgo_messaging.testing.service import running
from sqlalchemy import MetaData

TABLES = MetaData()
messaging_tables(TABLES)
MAIL = Channel("mail.commands", Kind.COMMAND, key=lambda c: c.customer)


@MAIL.carries("example.Notify")  # no replies_to: whoever asks for an answer is refused
class Notify(Command[Success], frozen=True, kw_only=True):
    customer: str
    text: str


async def main(database_url: str, broker_url: str) -> list[str]:
    """Ann is told something. Returns what she was told."""
    told: asyncio.Queue[str] = asyncio.Queue()
    handlers = MessageHandlers("mail")

    @handlers.handle(Notify)
    async def notify(command: Notify, uow: UnitOfWork) -> None:
        told.put_nowait(f"{command.customer}: {command.text}")

    async def tell(uow: UnitOfWork) -> None:
        uow.send(Notify(customer="ann", text="Your parcel is here."))

    async with running(database_url, broker_url, TABLES, [(MAIL, handlers)]) as transactions:
        await transactions.run_operation(Operation(tell))
        async with asyncio.timeout(60):
            return [await told.get()]


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:])))
