"""The composition root: the one place where the parts of the order service are wired."""

from datetime import timedelta

from ftgo_contracts.channels import (
    CANCEL_ORDER_REPLIES,
    CONSUMER_EVENTS,
    CREATE_ORDER_REPLIES,
    READERS,
    RESTAURANT_EVENTS,
    REVISE_ORDER_REPLIES,
)
from ftgo_messaging.sagas.recovery import reconcile_forever
from ftgo_messaging.upkeep import retention
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Service

from ftgo_order import sagas
from ftgo_order.adapters import order_counts
from ftgo_order.adapters.order_changes import OrderChanges
from ftgo_order.http.routes import router
from ftgo_order.messaging.event_handlers import REPLICAS
from ftgo_order.settings import OrderSettings


def build(settings: OrderSettings) -> Service:
    """The service, ready to run."""
    service = Service("order", settings, READERS)
    changes = OrderChanges(service.engine, settings.waiting_limit, lambda: service.stopping)
    service.transactions.after_commit += [changes.committed, order_counts.count]
    service.read(sagas.handlers(), CREATE_ORDER_REPLIES, CANCEL_ORDER_REPLIES, REVISE_ORDER_REPLIES)
    service.read(REPLICAS, CONSUMER_EVENTS, RESTAURANT_EVENTS)
    service.background.append(lambda: reconcile_forever(sagas.ORCHESTRATOR, service.upkeep))
    service.retention += [
        retention.finished_sagas(timedelta(days=settings.sagas_days)),
        retention.rows_since("idempotency_keys", "at", timedelta(days=settings.idempotency_keys_days)),
    ]
    app = create_app("FTGO Order", "Orders, and the sagas that create, cancel and revise them.")
    app.include_router(router)
    app.state.order_changes = changes
    service.attach(app)
    return service
