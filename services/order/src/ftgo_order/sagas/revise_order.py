"""ReviseOrder: verify the consumer for the new total, propose the new lines to the kitchen, revise the authorization
(pivot), confirm ticket and order."""

from ftgo_contracts.accounting.commands import ReviseAuthorization
from ftgo_contracts.channels import REVISE_ORDER_REPLIES
from ftgo_contracts.kitchen.commands import (
    BeginReviseTicket,
    ConfirmReviseTicket,
    TicketLineItem,
    UndoBeginReviseTicket,
)
from ftgo_contracts.money import Money
from ftgo_messaging import Saga, SagaStep, StepKind, UnitOfWork

from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application import order_steps
from ftgo_order.domain.order import Order
from ftgo_order.sagas.orchestration import ORCHESTRATOR, OrderSagaData, refused_by, ticket_lines, verify_consumer


class ReviseOrderData(OrderSagaData, frozen=True, kw_only=True, rename="camel"):
    revised_total: Money
    revised_line_items: tuple[TicketLineItem, ...]


async def _begun(data: ReviseOrderData, uow: UnitOfWork) -> None:
    """The use case has put the order into REVISION_PENDING in this very transaction."""


async def _undo(data: ReviseOrderData, uow: UnitOfWork) -> None:
    await order_steps.undo_revise(data.order_id, data.reason, data.service, uow)


async def _confirm(data: ReviseOrderData, uow: UnitOfWork) -> None:
    await order_steps.confirm_revise(data.order_id, uow)


def _definition(version: int, *before_the_ticket: SagaStep[ReviseOrderData]) -> Saga[ReviseOrderData]:
    return Saga(
        type="ftgo.order.ReviseOrder",
        version=version,
        data=ReviseOrderData,
        reply_channel=REVISE_ORDER_REPLIES,
        needs=lambda d: [(ORDERS, d.order_id)],
        steps=[
            SagaStep(name="begin revision", local=_begun, undo=_undo),
            *before_the_ticket,
            SagaStep(
                name="begin revise ticket",
                command=lambda d: BeginReviseTicket(
                    order_id=d.order_id, restaurant_id=d.restaurant_id, revised_line_items=d.revised_line_items
                ),
                compensation=lambda d: UndoBeginReviseTicket(order_id=d.order_id, restaurant_id=d.restaurant_id),
                on_failure=refused_by("kitchen"),
            ),
            SagaStep(
                name="revise authorization",
                kind=StepKind.PIVOT,
                command=lambda d: ReviseAuthorization(
                    consumer_id=d.consumer_id, order_id=d.order_id, amount=d.revised_total
                ),
                on_failure=refused_by("accounting"),
            ),
            SagaStep(
                name="confirm revise ticket",
                kind=StepKind.RETRIABLE,
                command=lambda d: ConfirmReviseTicket(
                    order_id=d.order_id, restaurant_id=d.restaurant_id, revised_line_items=d.revised_line_items
                ),
            ),
            SagaStep(name="revise order", kind=StepKind.RETRIABLE, local=_confirm),
        ],
    )


REVISE_ORDER_V1 = _definition(1)
"""Asked nothing of Consumer. Only for what an earlier release has begun."""
REVISE_ORDER = _definition(2, verify_consumer(lambda d: d.revised_total))

ORCHESTRATOR.register(REVISE_ORDER_V1)
ORCHESTRATOR.register(REVISE_ORDER)


async def start(order: Order, uow: UnitOfWork) -> str:
    """Start the saga in the transaction that puts the order into REVISION_PENDING. Returns the saga's id."""
    if order.revision is None:
        raise ValueError(f"order {order.id} has no revision to carry out")
    data = ReviseOrderData(
        order_id=order.id,
        consumer_id=order.consumer_id,
        restaurant_id=order.restaurant_id,
        revised_total=order.revision.order_total,
        revised_line_items=ticket_lines(order.revision.line_items),
    )
    return await ORCHESTRATOR.start(REVISE_ORDER, data, uow)
