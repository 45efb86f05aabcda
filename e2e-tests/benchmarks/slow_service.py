"""A service for one benchmark: its handler waits for somebody else, five milliseconds a message, and uses no CPU.

So do handlers that ask a payment provider, or whose database is a network away. ``python slow_service.py`` runs its
worker; ``python slow_service.py tables`` makes its tables.
"""

import asyncio
import sys

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.upkeep.tables import messaging_tables
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Part, Service
from ftgo_service_kit.settings import ServiceSettings, read_settings
from pydantic_settings import SettingsConfigDict
from sqlalchemy import MetaData

WAIT_SECONDS = 0.005
EVENTS = Channel("slow.events", Kind.EVENT)
HANDLERS = MessageHandlers("slow")
METADATA = MetaData()
messaging_tables(METADATA)


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_SLOW_", extra="ignore")


@EVENTS.carries("ftgo.bench.Happened")
class Happened(DomainEvent, frozen=True, kw_only=True):
    pass


@HANDLERS.handle(Happened)
async def happened(_: Happened, __: UnitOfWork) -> None:
    await asyncio.sleep(WAIT_SECONDS)


async def make_tables(service: Service) -> None:
    async with service.engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    await service.pools.close()


def main() -> None:
    settings = read_settings(Settings)
    service = Service("slow", settings)
    if sys.argv[1:] == ["tables"]:
        asyncio.run(make_tables(service))
        return
    service.consumers = [
        ChannelConsumer(
            HANDLERS.consumer,
            [EVENTS],
            HANDLERS,
            service.transactions,
            service.transport,
            max_records=settings.batch,
        )
    ]
    service.attach(create_app("Slow", "For a benchmark."))
    service.run(Part.WORKER)


if __name__ == "__main__":
    main()
