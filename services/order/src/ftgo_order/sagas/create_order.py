"""CreateOrder: verify the consumer, make a ticket, authorize the payment (pivot), confirm the ticket, approve."""

from ftgo_contracts.accounting.commands import AuthorizePayment, ReverseAuthorization
from ftgo_contracts.channels import CREATE_ORDER_REPLIES
from ftgo_contracts.consumer.commands import NotifyConsumer
from ftgo_contracts.kitchen.commands import CancelCreateTicket, ConfirmCreateTicket, CreateTicket, TicketLineItem
from ftgo_contracts.money import Money
from ftgo_messaging import Saga, SagaStep, StepKind, UnitOfWork

from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application import order_steps
from ftgo_order.domain.order import Order
from ftgo_order.sagas.orchestration import ORCHESTRATOR, OrderSagaData, refused_by, ticket_lines, verify_consumer


class CreateOrderData(OrderSagaData, frozen=True, kw_only=True, rename="camel"):
    order_total: Money
    line_items: tuple[TicketLineItem, ...]


async def _created(data: CreateOrderData, uow: UnitOfWork) -> None:
    """The use case has created the order in this very transaction."""


async def _reject(data: CreateOrderData, uow: UnitOfWork) -> None:
    await order_steps.reject(data.order_id, data.reason, data.service, uow)


async def _approve(data: CreateOrderData, uow: UnitOfWork) -> None:
    await order_steps.approve(data.order_id, uow)
    uow.send(NotifyConsumer(consumer_id=data.consumer_id, order_id=data.order_id, text="Your order is approved."))


CREATE_ORDER = Saga(
    type="ftgo.order.CreateOrder",
    version=1,
    data=CreateOrderData,
    reply_channel=CREATE_ORDER_REPLIES,
    needs=lambda d: [(ORDERS, d.order_id)],
    steps=[
        SagaStep(name="create order", local=_created, undo=_reject),
        verify_consumer(lambda d: d.order_total),
        SagaStep(
            name="create ticket",
            command=lambda d: CreateTicket(order_id=d.order_id, restaurant_id=d.restaurant_id, line_items=d.line_items),
            compensation=lambda d: CancelCreateTicket(ticket_id=d.order_id),
            on_failure=refused_by("kitchen"),
        ),
        SagaStep(
            name="authorize payment",
            kind=StepKind.PIVOT,
            command=lambda d: AuthorizePayment(consumer_id=d.consumer_id, order_id=d.order_id, amount=d.order_total),
            on_failure=refused_by("accounting"),
            if_unanswered=lambda d: ReverseAuthorization(consumer_id=d.consumer_id, order_id=d.order_id),
        ),
        SagaStep(
            name="confirm ticket",
            kind=StepKind.RETRIABLE,
            command=lambda d: ConfirmCreateTicket(ticket_id=d.order_id),
        ),
        SagaStep(name="approve order", kind=StepKind.RETRIABLE, local=_approve),
    ],
)

ORCHESTRATOR.register(CREATE_ORDER)


async def start(order: Order, uow: UnitOfWork) -> str:
    """Start the saga in the transaction that creates the order. Returns the saga's id."""
    data = CreateOrderData(
        order_id=order.id,
        consumer_id=order.consumer_id,
        restaurant_id=order.restaurant_id,
        order_total=order.order_total,
        line_items=ticket_lines(order.line_items),
    )
    return await ORCHESTRATOR.start(CREATE_ORDER, data, uow)
