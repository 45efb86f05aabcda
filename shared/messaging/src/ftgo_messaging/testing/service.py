"""A small service in this process: its tables, its relay and its consumers, for as long as the block runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import Transport


@asynccontextmanager
async def running(
    database_url: str,
    broker_url: str,
    metadata: MetaData,
    listening: Sequence[tuple[Channel, MessageHandlers]],
    *loops: Callable[[Transactions], Coroutine[Any, Any, None]],
) -> AsyncIterator[Transactions]:
    """On the broker at that URL: see ``running_on``."""
    transport = transport_at(broker_url)
    try:
        async with running_on(database_url, transport, metadata, listening, *loops) as transactions:
            yield transactions
    finally:
        await transport.close()


@asynccontextmanager
async def running_on(
    database_url: str,
    transport: Transport,
    metadata: MetaData,
    listening: Sequence[tuple[Channel, MessageHandlers]],
    *loops: Callable[[Transactions], Coroutine[Any, Any, None]],
) -> AsyncIterator[Transactions]:
    """Create what is missing (tables, channels), start the relay, a consumer for each pair, and the loops."""
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    readers: dict[str, list[str]] = {}
    for channel, handlers in listening:
        readers.setdefault(channel.name, []).append(handlers.consumer)
    await transport.declare([channel for channel, _ in listening], readers)
    transactions, wake_up, publisher = Transactions(engine, "example"), WakeUp(), transport.publisher("example")
    transactions.after_commit.append(lambda _: wake_up.ring())
    relay = PollingPublisher(engine, publisher, wake_up)
    tasks = [asyncio.create_task(relay.run()), *(asyncio.create_task(loop(transactions)) for loop in loops)]
    consumers = [
        ChannelConsumer(handlers.consumer, [channel], handlers, transactions, transport)
        for channel, handlers in listening
    ]
    for consumer in consumers:
        await consumer.start()
    try:
        yield transactions
    finally:
        await asyncio.gather(*(consumer.stop() for consumer in consumers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await publisher.close()
        await engine.dispose()
