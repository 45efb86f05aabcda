"""When an order is settled: on Kafka by its events, on any broker by its database.

The second tells a moment sooner: before the event has left the outbox. Compare what was measured in the same way only.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
from aiokafka import AIOKafkaConsumer
from deployment import Deployment

Settlements = AsyncIterator[tuple[str, bool]]
"""Id of an order, and whether it was approved."""
Source = Callable[[Deployment], AbstractAsyncContextManager[Settlements]]

_EVENTS = {b"ftgo.order.OrderApproved": True, b"ftgo.order.OrderRejected": False}


@asynccontextmanager
async def of_events(system: Deployment) -> AsyncIterator[Settlements]:
    """From the topic order.events."""
    events = AIOKafkaConsumer("order.events", bootstrap_servers=system.bootstrap)  # in no group
    await events.start()
    try:
        await events.seek_to_end()

        async def settled() -> Settlements:
            async for record in events:
                approved = next((_EVENTS.get(value) for name, value in record.headers if name == "ce_type"), None)
                if approved is not None:
                    yield record.key.decode(), approved

        yield settled()
    finally:
        await events.stop()


_STATES = {"APPROVED": True, "REJECTED": False}
_TRIGGER = """
CREATE OR REPLACE FUNCTION bench_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bench_settled', NEW.id::text || ' ' || NEW.state);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER bench_settled AFTER UPDATE ON orders FOR EACH ROW
WHEN (OLD.state = 'APPROVAL_PENDING' AND NEW.state IN ('APPROVED', 'REJECTED')) EXECUTE FUNCTION bench_settled();
"""


@asynccontextmanager
async def of_database(system: Deployment) -> AsyncIterator[Settlements]:
    """From PostgreSQL, by a trigger on the orders: it costs the same on every broker, a notification for each order."""
    connection = await asyncpg.connect(system.order_dsn)
    told: asyncio.Queue[str] = asyncio.Queue()
    try:
        await connection.execute(_TRIGGER)
        await connection.add_listener("bench_settled", lambda _, __, ___, payload: told.put_nowait(payload))

        async def settled() -> Settlements:
            while True:
                order_id, state = (await told.get()).split()
                yield order_id, _STATES[state]

        yield settled()
    finally:
        await connection.close()
