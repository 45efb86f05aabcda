"""The embedded platform as a Python object: a PostgreSQL and a Kafka of one's own, for tests and for the supervisor.

async with Platform(tmp_path) as platform:      # free ports, everything below tmp_path, gone afterwards
    dsns = await platform.create_databases(["order"])
    platform.kafka.bootstrap
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from ftgo_local.kafka import Kafka
from ftgo_local.ports import chosen_ports, free_port
from ftgo_local.postgres import Postgres
from ftgo_local.state import StateDirectory


class Platform:
    """PostgreSQL and Kafka below one state directory. Starts nothing by itself and prints nothing.

    ``port_offset`` chooses the ports as the command line does; without it they are free ones. ``postgres`` and
    ``kafka`` can be stopped, killed and started one by one; a start finds the data of the last.
    """

    def __init__(
        self, state_dir: Path, port_offset: int | None = None, *, ports: Mapping[str, int] | None = None
    ) -> None:
        if ports is None:
            ports = chosen_ports(port_offset) if port_offset is not None else {}
        self.state = StateDirectory(state_dir)
        logs = self.state.logs

        def port(name: str) -> int:
            return ports[name] if name in ports else free_port()

        self.postgres = Postgres(state_dir / "postgres", port("postgres"), logs / "postgres.log")
        self.kafka = Kafka(state_dir / "kafka", port("kafka"), port("kafka_controller"), logs / "kafka.log")

    async def start_postgres(self) -> None:
        """Start and wait until it answers: about 1 s the first time, 0.1 s later. Raises PlatformError."""
        self.state.create()
        await self.postgres.start()

    async def start_kafka(self) -> None:
        """Start and wait until it answers: about 3 s. The first time on a machine, download the jars (45 MB)."""
        self.state.create()
        await self.kafka.start()

    async def create_services(self, services: Iterable[str], *, tailing: bool = False) -> None:
        """A database per service, with its roles: of the owner, the service and, for log tailing, its relay."""
        await self.postgres.create_services(services, tailing=tailing)

    async def create_databases(self, services: Iterable[str]) -> dict[str, str]:
        """Databases with one role each that does everything, for tests. May repeat. Returns the DSNs."""
        return await self.postgres.create_service_databases(services)

    def stop(self) -> None:
        """Stop what runs, Kafka first. The data stay."""
        self.kafka.stop()
        self.postgres.stop()

    async def __aenter__(self) -> "Platform":
        await self.start_postgres()
        try:
            await self.start_kafka()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.state.delete()
