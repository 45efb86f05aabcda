"""The composition root: the one place where the parts of the kitchen service are wired."""

from ftgo_contracts.channels import KITCHEN_COMMANDS, READERS
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Service

from ftgo_kitchen.http.routes import router
from ftgo_kitchen.messaging.command_handlers import COMMANDS
from ftgo_kitchen.settings import KitchenSettings


def build(settings: KitchenSettings) -> Service:
    """The service, ready to run."""
    service = Service("kitchen", settings, READERS)
    service.read(COMMANDS, KITCHEN_COMMANDS)
    app = create_app("FTGO Kitchen", "Restaurants, menus and tickets.")
    app.include_router(router)
    service.attach(app)
    return service
