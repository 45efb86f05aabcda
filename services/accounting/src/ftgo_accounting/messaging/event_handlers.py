"""The events of others that accounting listens to."""

from ftgo_contracts.consumer.events import ConsumerRegistered
from ftgo_messaging import MessageHandlers, UnitOfWork

from ftgo_accounting.adapters.tables import ACCOUNTS
from ftgo_accounting.application.accounts import open_account

EVENTS = MessageHandlers("accounting-consumers")


@EVENTS.handle(ConsumerRegistered, needs=lambda event: [(ACCOUNTS, event.consumer_id)])
async def on_consumer_registered(event: ConsumerRegistered, uow: UnitOfWork) -> None:
    await open_account(event.consumer_id, uow)
