"""CancelOrder: ask the kitchen, give the credit back (pivot), cancel ticket and order."""

from ftgo_contracts.accounting.commands import ReverseAuthorization
from ftgo_contracts.channels import CANCEL_ORDER_REPLIES
from ftgo_contracts.kitchen.commands import BeginCancelTicket, ConfirmCancelTicket, UndoBeginCancelTicket
from ftgo_messaging import Saga, SagaStep, StepKind, UnitOfWork

from ftgo_order.adapters.tables import ORDERS
from ftgo_order.application import order_steps
from ftgo_order.domain.order import Order
from ftgo_order.sagas.orchestration import ORCHESTRATOR, OrderSagaData, refused_by


async def _begun(data: OrderSagaData, uow: UnitOfWork) -> None:
    """The use case has put the order into CANCEL_PENDING in this very transaction."""


async def _undo(data: OrderSagaData, uow: UnitOfWork) -> None:
    await order_steps.undo_cancel(data.order_id, data.reason, data.service, uow)


async def _confirm(data: OrderSagaData, uow: UnitOfWork) -> None:
    await order_steps.confirm_cancel(data.order_id, uow)


CANCEL_ORDER = Saga(
    type="ftgo.order.CancelOrder",
    version=1,
    data=OrderSagaData,
    reply_channel=CANCEL_ORDER_REPLIES,
    needs=lambda d: [(ORDERS, d.order_id)],
    steps=[
        SagaStep(name="begin cancel", local=_begun, undo=_undo),
        SagaStep(
            name="begin cancel ticket",
            command=lambda d: BeginCancelTicket(order_id=d.order_id, restaurant_id=d.restaurant_id),
            compensation=lambda d: UndoBeginCancelTicket(order_id=d.order_id, restaurant_id=d.restaurant_id),
            on_failure=refused_by("kitchen"),
        ),
        SagaStep(
            name="reverse authorization",
            kind=StepKind.PIVOT,
            command=lambda d: ReverseAuthorization(consumer_id=d.consumer_id, order_id=d.order_id),
            on_failure=refused_by("accounting"),
        ),
        SagaStep(
            name="confirm cancel ticket",
            kind=StepKind.RETRIABLE,
            command=lambda d: ConfirmCancelTicket(order_id=d.order_id, restaurant_id=d.restaurant_id),
        ),
        SagaStep(name="cancel order", kind=StepKind.RETRIABLE, local=_confirm),
    ],
)

ORCHESTRATOR.register(CANCEL_ORDER)


async def start(order: Order, uow: UnitOfWork) -> str:
    """Start the saga in the transaction that puts the order into CANCEL_PENDING. Returns the saga's id."""
    data = OrderSagaData(order_id=order.id, consumer_id=order.consumer_id, restaurant_id=order.restaurant_id)
    return await ORCHESTRATOR.start(CANCEL_ORDER, data, uow)
