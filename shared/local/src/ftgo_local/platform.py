"""The embedded platform as a Python object: a PostgreSQL and a broker of one's own, for tests and for the supervisor.

async with Platform(tmp_path) as platform:      # free ports, everything below tmp_path, gone afterwards
    dsns = await platform.create_databases(["order"])
    platform.broker.url
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from ftgo_local.brokers.kinds import DEFAULT, Broker, server
from ftgo_local.kafka import Kafka
from ftgo_local.ports import chosen_ports, free_port
from ftgo_local.postgres import Postgres
from ftgo_local.state import StateDirectory


class Platform:
    """PostgreSQL and a broker below one state directory. Starts nothing by itself and prints nothing.

    ``port_offset`` chooses the ports as the command line does; without it they are free ones. ``postgres`` and
    ``broker`` can be stopped, killed and started one by one; a start finds the data of the last.
    """

    postgres: Postgres
    broker: Broker

    def __init__(
        self,
        state_dir: Path,
        port_offset: int | None = None,
        *,
        ports: Mapping[str, int] | None = None,
        broker: str = DEFAULT,
    ) -> None:
        if ports is None:
            ports = chosen_ports(port_offset, broker=broker) if port_offset is not None else {}
        self.state = StateDirectory(state_dir)
        self._ports = ports
        self._servers: dict[str, Broker] = {}
        self.postgres = Postgres(state_dir / "postgres", self._port("postgres"), self.state.logs / "postgres.log")
        self.broker = self.server(broker)

    def _port(self, name: str) -> int:
        return self._ports[name] if name in self._ports else free_port()

    def server(self, name: str) -> Broker:
        """The broker of that name, which may run beside the other: made once. Starts nothing. Raises PlatformError when
        a package of it is missing."""
        if name not in self._servers:
            self._servers[name] = server(name, self.state.path, self._port, self.state.logs / f"{name}.log")
        return self._servers[name]

    def forget(self, name: str) -> None:
        """Make it anew when it is asked for again: with other ports, perhaps."""
        self._servers.pop(name, None)

    @property
    def kafka(self) -> Kafka:
        """The broker, which is Kafka. Raises TypeError where it is another."""
        if not isinstance(self.broker, Kafka):
            raise TypeError(f"the broker of this platform is {self.broker.name}")
        return self.broker

    async def start_postgres(self) -> None:
        """Start and wait until it answers: about 1 s the first time, 0.1 s later. Raises PlatformError."""
        self.state.create()
        await self.postgres.start()

    async def start_broker(self) -> None:
        """Start and wait until it answers: about 3 s for Kafka. The first time here it may be fetched (45 MB)."""
        self.state.create()
        await self.broker.start()

    async def start_kafka(self) -> None:
        """The same, where it is Kafka."""
        self.state.create()
        await self.kafka.start()

    async def create_services(self, services: Iterable[str], *, tailing: bool = False) -> None:
        """A database per service, with its roles: of the owner, the service and, for log tailing, its relay."""
        await self.postgres.create_services(services, tailing=tailing)

    async def create_databases(self, services: Iterable[str]) -> dict[str, str]:
        """Databases with one role each that does everything, for tests. May repeat. Returns the DSNs."""
        return await self.postgres.create_service_databases(services)

    def stop(self) -> None:
        """Stop what runs, the broker first. The data stay."""
        self.broker.stop()
        self.postgres.stop()

    async def __aenter__(self) -> "Platform":
        await self.start_postgres()
        try:
            await self.start_broker()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.state.delete()
