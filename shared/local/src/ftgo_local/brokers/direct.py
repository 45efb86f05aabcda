"""No server at all: the registry over which the services talk to each other. It says where each consumer listens.

Who reads what is in ``ftgo_contracts.channels``; the addresses are ports of this machine, one for each consumer, as
each service is one process here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
from ftgo_messaging.transports.direct.registry import Registry, locked, registry_at
from msgspec import structs

from ftgo_local.errors import PlatformError
from ftgo_local.files import replace_if_different
from ftgo_local.ports import CONSUMERS, free_port
from ftgo_local.unprivileged import owned_directory

FILE = "registry.json"


class Direct:
    """The registry below ``directory``. It is a unit as the brokers are, of which no process ever runs."""

    pid: int | None = None
    end = ""

    def __init__(self, directory: Path, *ports: int, log: Path | None = None) -> None:
        self.name = "direct"
        self.directory = directory
        self.port = ports[0]
        self.log = log or directory.parent / f"{directory.name}.log"
        self._addresses = {
            consumer: [f"http://127.0.0.1:{port}"] for consumer, port in zip(CONSUMERS, ports, strict=True)
        }

    @property
    def url(self) -> str:
        """The folder's own place, where it had to be made elsewhere (``owned_directory``)."""
        return f"http+static://{quote(str(self.directory.resolve() / FILE))}"

    async def prepare(self) -> None:
        """There is nothing to fetch."""

    def known_version(self) -> str:
        return "no broker: HTTP between the services, over a registry"

    async def start(self) -> None:
        """Write the addresses. The channels that were declared earlier stay. Raises PlatformError."""
        try:
            file = owned_directory(self.directory) / FILE

            def addressed(registry: Registry) -> Registry:
                return Registry(consumers=self._addresses, channels=registry.channels)

            change(file, addressed)
        except OSError as error:
            raise PlatformError(f"The registry in {self.directory} cannot be written: {error}.", "") from error

    def stop(self) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Nothing runs."""


def change(file: Path, how: Callable[[Registry], Registry]) -> None:
    """Write it anew, whole, while nobody else does. One that is missing or damaged is begun with nothing."""
    with locked(file.parent):
        try:
            registry = msgspec.json.decode(file.read_bytes(), type=Registry)
        except (OSError, msgspec.DecodeError, UnicodeError):
            registry = Registry()
        replace_if_different(file, msgspec.json.format(msgspec.json.encode(how(registry))).decode())
        file.chmod(0o644)  # in a folder that is closed: services read it, whoever they and its writer run as


@contextmanager
def admitted(url: str, consumer: str, channel: str) -> Iterator[None]:
    """One more reader of a channel that is declared, on a free port; out of the registry again at the end."""
    file = registry_at(url).path

    def come(registry: Registry) -> Registry:
        addresses = registry.consumers | {consumer: [f"http://127.0.0.1:{free_port()}"]}
        readers = [*registry.channels.get(channel, ()), consumer]
        return structs.replace(registry, consumers=addresses, channels=registry.channels | {channel: readers})

    def go(registry: Registry) -> Registry:
        addresses = {name: urls for name, urls in registry.consumers.items() if name != consumer}
        readers = [name for name in registry.channels.get(channel, ()) if name != consumer]
        return structs.replace(registry, consumers=addresses, channels=registry.channels | {channel: readers})

    change(file, come)
    try:
        yield
    finally:
        change(file, go)
