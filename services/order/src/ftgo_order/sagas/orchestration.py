"""The orchestrator of this service; each saga module registers its definition with it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from ftgo_contracts.consumer.commands import VerifyConsumer
from ftgo_contracts.kitchen.commands import TicketLineItem
from ftgo_contracts.money import Money
from ftgo_messaging import Failure, Orchestrator, SagaStep
from ftgo_messaging.sagas.instance import saga_instances

from ftgo_order.adapters.tables import SAGA_INSTANCES
from ftgo_order.domain.order import OrderLineItem

ORCHESTRATOR = Orchestrator(saga_instances(SAGA_INSTANCES))


class OrderSagaData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all sagas on an order remember. ``reason`` and ``service``: who refused, and why."""

    order_id: str
    consumer_id: str
    restaurant_id: str
    reason: str = ""
    service: str = ""


D = TypeVar("D", bound=OrderSagaData)


def refused_by(service: str) -> Callable[[D, Failure], D]:
    """Remember why the saga turns back."""
    return lambda data, failure: msgspec.structs.replace(data, reason=failure.reason, service=service)


def verify_consumer(total: Callable[[D], Money]) -> SagaStep[D]:
    """The step that every saga takes before an order comes to a total: the owner says whether the consumer may."""
    return SagaStep(
        name="verify consumer",
        command=lambda d: VerifyConsumer(consumer_id=d.consumer_id, order_id=d.order_id, order_total=total(d)),
        on_failure=refused_by("consumer"),
    )


def ticket_lines(items: Iterable[OrderLineItem]) -> tuple[TicketLineItem, ...]:
    """What the kitchen has to know of an order's lines."""
    return tuple(TicketLineItem(i.menu_item_id, i.name, i.quantity) for i in items)
