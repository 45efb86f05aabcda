"""Register, rename, block and unblock consumers; tell the others."""

from collections.abc import Callable

from ftgo_contracts.consumer.events import (
    ConsumerBlocked,
    ConsumerEvent,
    ConsumerRegistered,
    ConsumerRenamed,
    ConsumerUnblocked,
    PersonName,
)
from ftgo_messaging import UnitOfWork

from ftgo_consumer.adapters.tables import CONSUMERS
from ftgo_consumer.domain.consumer import Consumer, ConsumerNotFound


async def register(consumer: Consumer, uow: UnitOfWork) -> Consumer:
    _record(consumer, ConsumerRegistered, uow)
    return consumer


async def rename(consumer_id: str, first_name: str, last_name: str, uow: UnitOfWork) -> Consumer:
    return await _change(consumer_id, lambda c: c.rename(first_name, last_name), ConsumerRenamed, uow)


async def block(consumer_id: str, uow: UnitOfWork) -> Consumer:
    """From now on the consumer's orders are rejected, and revisions refused. What was verified before goes on."""
    return await _change(consumer_id, Consumer.block, ConsumerBlocked, uow)


async def unblock(consumer_id: str, uow: UnitOfWork) -> Consumer:
    return await _change(consumer_id, Consumer.unblock, ConsumerUnblocked, uow)


async def _change(
    consumer_id: str, transition: Callable[[Consumer], Consumer], event: type[ConsumerEvent], uow: UnitOfWork
) -> Consumer:
    consumer = await uow.find(CONSUMERS, consumer_id)
    if consumer is None:
        raise ConsumerNotFound(f"There is no consumer {consumer_id}.")
    changed = transition(consumer)
    if changed is not consumer:
        _record(changed, event, uow)
    return changed


def _record(consumer: Consumer, event: type[ConsumerEvent], uow: UnitOfWork) -> None:
    uow.save(CONSUMERS, consumer)
    name = PersonName(consumer.first_name, consumer.last_name)
    uow.publish(
        event(consumer_id=consumer.id, name=name, status=consumer.status.value),
        subject=consumer.id,
        version=consumer.version,
    )
