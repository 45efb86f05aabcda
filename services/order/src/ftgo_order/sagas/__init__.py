"""The three sagas that Order orchestrates."""

from ftgo_contracts.accounting.replies import PaymentAuthorized, PaymentDeclined
from ftgo_contracts.consumer.replies import ConsumerVerificationFailed, ConsumerVerified
from ftgo_contracts.kitchen.replies import TicketCreated, TicketRefused
from ftgo_messaging import Failure, MessageHandlers, Success

from ftgo_order.sagas import cancel_order, create_order, revise_order
from ftgo_order.sagas.orchestration import ORCHESTRATOR

__all__ = ["ORCHESTRATOR", "cancel_order", "create_order", "handlers", "revise_order"]


def handlers() -> MessageHandlers:
    """Every reply to a saga of this service goes to its instance."""
    return ORCHESTRATOR.handlers(
        "order-sagas",
        [
            Success,
            Failure,
            ConsumerVerified,
            ConsumerVerificationFailed,
            TicketCreated,
            TicketRefused,
            PaymentAuthorized,
            PaymentDeclined,
        ],
    )
