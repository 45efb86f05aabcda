"""How channels are realised: one port, and a package for each broker, which alone imports that broker's client."""

import importlib
from urllib.parse import urlsplit

from ftgo_messaging.transports.port import BrokerRefuses, Transport

PACKAGES = {
    "kafka": "kafka",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "stomp": "activemq",
    "stomp+ssl": "activemq",
    "valkey": "valkey",
    "valkeys": "valkey",
    "redis": "valkey",
    "rediss": "valkey",
    "nats": "nats",
    "tls": "nats",
    "sqs": "aws",
    "http+static": "direct",
    "memory": "memory",
}
"""The scheme of a broker's URL, and the package that speaks to it. amqps, stomp+ssl, valkeys, rediss and tls (NATS' own
name for it) are encrypted (``tls``)."""


def transport_at(url: str) -> Transport:
    """The broker at this URL, by its scheme. Opens no connection. Raises BrokerRefuses, with a sentence, for a scheme
    that nobody knows and for a client that is not installed."""
    scheme = urlsplit(url).scheme
    package = PACKAGES.get(scheme)
    if package is None:
        known = ", ".join(f"{name}://" for name in PACKAGES if name != "memory")
        raise BrokerRefuses(f"{scheme or url!r} is no broker's scheme: the URL begins with one of {known}")
    try:
        module = importlib.import_module(f"{__name__}.{package}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ftgo_messaging"):
            raise
        raise BrokerRefuses(
            f"{scheme}:// needs the Python package {error.name!r}: pip install 'ftgo-messaging[{package}]'"
        ) from error
    transport: Transport = module.transport(url)
    return transport
