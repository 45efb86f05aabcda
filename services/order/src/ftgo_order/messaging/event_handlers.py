"""Feeds the replicas of consumers and restaurants.

Without deduplication by message id: the version in the replica's row recognises what is old.
"""

from ftgo_contracts.consumer.events import (
    ConsumerBlocked,
    ConsumerEvent,
    ConsumerRegistered,
    ConsumerRenamed,
    ConsumerUnblocked,
)
from ftgo_contracts.kitchen.events import RestaurantCreated, RestaurantEvent, RestaurantMenuRevised
from ftgo_messaging import Message, MessageHandlers, UnitOfWork
from ftgo_messaging.messages.message import SEQUENCE

from ftgo_order.adapters.replicas import replicate_consumer, replicate_restaurant

REPLICAS = MessageHandlers("order-replicas")


@REPLICAS.handle(ConsumerRegistered, deduplicate=False, with_message=True)
@REPLICAS.handle(ConsumerRenamed, deduplicate=False, with_message=True)
@REPLICAS.handle(ConsumerBlocked, deduplicate=False, with_message=True)
@REPLICAS.handle(ConsumerUnblocked, deduplicate=False, with_message=True)
async def on_consumer_event(event: ConsumerEvent, uow: UnitOfWork, message: Message) -> None:
    await replicate_consumer(event, int(message.headers[SEQUENCE]), uow)


@REPLICAS.handle(RestaurantCreated, deduplicate=False, with_message=True)
@REPLICAS.handle(RestaurantMenuRevised, deduplicate=False, with_message=True)
async def on_restaurant_event(event: RestaurantEvent, uow: UnitOfWork, message: Message) -> None:
    await replicate_restaurant(event, int(message.headers[SEQUENCE]), uow)
