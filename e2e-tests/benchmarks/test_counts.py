"""What one settled order costs, in counts: the same on every machine, so they are gates where clocks are reports."""

from collections.abc import Iterator

import meter
import pytest
from deployment import Deployment
from load import Load, Run

ORDERS = 400

MESSAGES_PER_ORDER = {
    "order.events": 2,  # OrderCreated, OrderApproved
    "consumer.commands": 2,  # VerifyConsumer, NotifyConsumer
    "kitchen.commands": 2,  # CreateTicket, ConfirmCreateTicket
    "ticket.events": 1,  # TicketCreated
    "accounting.commands": 1,  # AuthorizePayment
    "account.events": 1,  # PaymentAuthorized
    "order.create-order.replies": 4,
}


@pytest.fixture(scope="module")
def system() -> Iterator[Deployment]:
    with Deployment(750) as system:
        yield system


@pytest.fixture(scope="module")
async def counted(system: Deployment) -> tuple[Run, meter.Kafka, meter.Sql]:
    """A burst of orders into a warm system."""
    async with Load(system) as load:
        await load.burst(ORDERS)
        async with meter.kafka(system) as kafka, meter.sql(system) as sql:
            run = await load.burst(ORDERS)
    return run, kafka, sql


def test_every_order_is_approved_once(counted: tuple[Run, meter.Kafka, meter.Sql]) -> None:
    run, _, _ = counted

    assert run.drained
    assert (run.accepted, run.approved, run.rejected, run.refused) == (ORDERS, ORDERS, 0, 0)


def test_kafka_messages_per_order_are_exact(counted: tuple[Run, meter.Kafka, meter.Sql]) -> None:
    _, kafka, _ = counted

    assert kafka.messages == {topic: number * ORDERS for topic, number in MESSAGES_PER_ORDER.items()}


def test_offsets_are_committed_per_batch(counted: tuple[Run, meter.Kafka, meter.Sql]) -> None:
    """One by one it would be nine per order: one for each command and each reply."""
    _, kafka, _ = counted

    assert 0 < kafka.offset_commits.total() < 0.5 * ORDERS


def test_messages_share_transactions(counted: tuple[Run, meter.Kafka, meter.Sql]) -> None:
    """One by one it would be ten commits per order in the services and more in the relays."""
    _, _, sql = counted

    assert 0 < sql.commits.total() < 1.0 * ORDERS


def test_messages_share_statements(counted: tuple[Run, meter.Kafka, meter.Sql]) -> None:
    """One by one it would be about eighty."""
    _, _, sql = counted

    assert 0 < sql.statements.total() < 6.0 * ORDERS
