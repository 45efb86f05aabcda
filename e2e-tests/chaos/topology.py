"""Who reads and writes which topic. Written down here once more, on purpose: the checker must not ask the system."""

from typing import Any, TypedDict

SERVICES = ("order", "consumer", "kitchen", "accounting")


class Subscription(TypedDict):
    """``types``: what the consumer handles, all of it if None. Without ``deduplicates`` there is no record of ids."""

    consumer: str
    service: str
    topics: list[str]
    types: list[str] | None
    deduplicates: bool


LANES = 12

REPLY_TOPICS = ["order.create-order.replies", "order.cancel-order.replies", "order.revise-order.replies"]

TOPICS = [
    "consumer.commands",
    "kitchen.commands",
    "accounting.commands",
    "consumer.events",
    "restaurant.events",
    "ticket.events",
    "account.events",
    "order.events",
    *REPLY_TOPICS,
]


def _subscription(consumer: str, service: str, topics: list[str], **more: Any) -> Subscription:
    return {"consumer": consumer, "service": service, "topics": topics, "types": None, "deduplicates": True, **more}  # type: ignore[typeddict-item]


SUBSCRIPTIONS: list[Subscription] = [
    _subscription("consumer", "consumer", ["consumer.commands"]),
    _subscription("kitchen", "kitchen", ["kitchen.commands"]),
    _subscription("accounting", "accounting", ["accounting.commands"]),
    _subscription(
        "accounting-consumers", "accounting", ["consumer.events"], types=["ftgo.consumer.ConsumerRegistered"]
    ),
    _subscription("order-sagas", "order", REPLY_TOPICS),
    _subscription("order-replicas", "order", ["consumer.events", "restaurant.events"], deduplicates=False),
]
