"""The composition root: the one place where the parts of the consumer service are wired."""

from ftgo_contracts.channels import CONSUMER_COMMANDS, READERS
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Service

from ftgo_consumer.adapters.mail import log_mail
from ftgo_consumer.http.routes import router
from ftgo_consumer.messaging.command_handlers import COMMANDS
from ftgo_consumer.settings import ConsumerSettings


def build(settings: ConsumerSettings) -> Service:
    """The service, ready to run."""
    service = Service("consumer", settings, READERS)
    service.transactions.after_commit.append(log_mail)
    service.read(COMMANDS, CONSUMER_COMMANDS)
    app = create_app("FTGO Consumer", "Who may order.")
    app.include_router(router)
    service.attach(app)
    return service
