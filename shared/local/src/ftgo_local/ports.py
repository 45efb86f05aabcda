"""Which ports the platform uses: from the environment, moved by an offset for a second copy side by side."""

import os
import secrets
import socket
from collections.abc import Mapping

import psutil
from ftgo_contracts.channels import READERS

from ftgo_local.errors import PlatformError

DEFAULT_PORTS = {
    "consumer": 8081,
    "order": 8082,
    "kitchen": 8083,
    "accounting": 8085,
    "postgres": 15432,
}
"""PostgreSQL and the brokers stay away from 5432, 9092 and so on: a developer's machine often has its own there."""

CONSUMERS = sorted({consumer for consumers in READERS.values() for consumer in consumers})
"""Each listens itself where there is no broker."""

BROKER_PORTS = {
    "kafka": {"kafka": 19092, "kafka_controller": 19093},
    "rabbitmq": {"rabbitmq": 19672},
    "activemq": {"activemq": 19613},
    "valkey": {"valkey": 19379},
    "nats": {"nats": 19222},
    "direct": {f"direct_{consumer.replace('-', '_')}": 19300 + place for place, consumer in enumerate(CONSUMERS)},
}
"""Only the broker that is to run needs its own; where there is none, each consumer does."""


def variable(name: str) -> str:
    return f"FTGO_{name.upper()}_PORT"


def chosen_ports(
    offset: int = 0,
    environment: Mapping[str, str] = os.environ,
    *,
    broker: str | None = "kafka",
    beside: str = "",
) -> dict[str, int]:
    """FTGO_<NAME>_PORT, or the default, plus the offset; of the broker, too, unless it runs elsewhere (None), and of
    one that runs ``beside`` it. Raises PlatformError for what cannot be a set of ports."""
    ports = {}
    of_brokers = {**BROKER_PORTS.get(broker or "", {}), **BROKER_PORTS.get(beside, {})}
    for name, default in {**DEFAULT_PORTS, **of_brokers}.items():
        text = environment.get(variable(name), str(default))
        if not text.isdecimal() or not 0 < int(text) + offset < 65536:
            raise PlatformError(
                f"{variable(name)}={text} with offset {offset} is not a port.", "Use a number from 1 to 65535."
            )
        ports[name] = int(text) + offset
    doubled = {p for p in ports.values() if list(ports.values()).count(p) > 1}
    if doubled:
        names = ", ".join(variable(n) for n, p in ports.items() if p in doubled)
        raise PlatformError(f"{names} are the same port.", "Give each its own.")
    return ports


_FOR_LISTENERS = range(20_000, 28_000)
"""Below what systems give to connections that go out (Linux from 32768, others from 49152)."""
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 for a server that starts in a while: nobody has it now, this process was not given it before,
    and no connection will get it. One of those that the system offers may be a client's before the server binds it."""
    while True:
        port = secrets.choice(_FOR_LISTENERS)
        if port not in _given and is_free(port):
            _given.add(port)
            return port


def is_free(port: int) -> bool:
    with socket.socket() as s:
        # As servers do: a connection that lingers after a stop does not keep the port.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens there, as far as we may know: "python3 (pid 123)"."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another program"


def taken_port(ports: Mapping[str, int]) -> PlatformError | None:
    """The first port in use as a cause and a cure; None when all are free."""
    for name, port in ports.items():
        if not is_free(port):
            return PlatformError(
                f"Port {port} ({name}) is used by {holder(port)}.",
                f"Stop it, or set {variable(name)}, or add --port-offset 100 to run beside it.",
            )
    return None
