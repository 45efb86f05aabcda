"""The composition root: the one place where the parts of the accounting service are wired."""

from ftgo_contracts.channels import ACCOUNTING_COMMANDS, CONSUMER_EVENTS, READERS
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Service

from ftgo_accounting.http.routes import router
from ftgo_accounting.messaging.command_handlers import COMMANDS
from ftgo_accounting.messaging.event_handlers import EVENTS
from ftgo_accounting.settings import AccountingSettings


def build(settings: AccountingSettings) -> Service:
    """The service, ready to run."""
    service = Service("accounting", settings, READERS)
    service.read(COMMANDS, ACCOUNTING_COMMANDS)
    service.read(EVENTS, CONSUMER_EVENTS)
    app = create_app("FTGO Accounting", "Accounts and their credit, event-sourced.")
    app.include_router(router)
    service.attach(app)
    return service
