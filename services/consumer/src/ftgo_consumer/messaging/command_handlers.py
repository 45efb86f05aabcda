"""The commands of consumer.commands."""

from datetime import UTC, datetime

from ftgo_contracts.consumer.commands import NotifyConsumer, VerifyConsumer
from ftgo_contracts.consumer.replies import ConsumerVerificationFailed, ConsumerVerified
from ftgo_messaging import MessageHandlers, Reply, UnitOfWork

from ftgo_consumer.adapters.tables import CONSUMERS_TO_READ, outbound_mail
from ftgo_consumer.domain.consumer import VerificationFailed

COMMANDS = MessageHandlers("consumer")


@COMMANDS.handle(VerifyConsumer, needs=lambda c: [(CONSUMERS_TO_READ, c.consumer_id)])
async def verify_consumer(command: VerifyConsumer, uow: UnitOfWork) -> Reply:
    consumer = await uow.find(CONSUMERS_TO_READ, command.consumer_id)
    if consumer is None:
        return ConsumerVerificationFailed(reason="UNKNOWN")
    try:
        consumer.verify(command.order_total)
    except VerificationFailed as refusal:
        return ConsumerVerificationFailed(reason=refusal.reason)
    return ConsumerVerified()


@COMMANDS.handle(NotifyConsumer)
async def notify_consumer(command: NotifyConsumer, uow: UnitOfWork) -> None:
    """One-way: whoever sent this does not wait and hears nothing."""
    uow.append(
        outbound_mail,
        {
            "consumer_id": command.consumer_id,
            "order_id": command.order_id,
            "text": command.text,
            "at": datetime.now(UTC),
        },
    )
