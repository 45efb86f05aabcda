"""What is refused at once, whether an order is created or revised: only what a replica proves wrong.

What is not known is no proof. A consumer's registration may still be on its way, and the order limit is not known here
at all: the sagas ask the owner, with the same command at both doors.
"""

from ftgo_messaging import DomainError, UnitOfWork

from ftgo_order.adapters.replicas import CONSUMERS


class ConsumerIsBlocked(DomainError):
    """The consumer is known to be blocked."""

    slug = "consumer-blocked"
    status = 422


class UnknownRestaurant(DomainError):
    """No menu is known for this restaurant, so nothing can be priced."""

    slug = "unknown-restaurant"
    status = 422


async def refuse_blocked(consumer_id: str, uow: UnitOfWork) -> None:
    """Raises ConsumerIsBlocked for a consumer who is known to be blocked."""
    consumer = await uow.find(CONSUMERS, consumer_id)
    if consumer is not None and consumer.blocked:
        raise ConsumerIsBlocked(f"consumerId: the consumer {consumer_id} is blocked")
