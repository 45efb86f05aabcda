"""The platform in containers: the images of docker-compose.yml, by testcontainers, with the embedded one's interface.

For tests (`make test PLATFORM=containers`). Servers can be stopped, killed and started one by one, and find their data;
``stop`` of the platform removes the containers and the data. A run that is itself killed leaves containers behind:
`docker ps --filter label=org.testcontainers=true` shows them.
"""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from ftgo_local import kafka, postgres
from ftgo_local.child import Child
from ftgo_local.errors import PlatformError
from ftgo_local.platform import Platform
from ftgo_local.ports import free_port

POSTGRES_IMAGE = "postgres:17"
KAFKA_IMAGE = "apache/kafka:4.1.1"
PATIENCE_SECONDS = 180
"""For what takes some seconds: where CI builds images at the same time, it takes a minute."""

# Its reaper is one more image, which needs the engine's socket. What we start, we remove.
testcontainers_config.ryuk_disabled = True


class Container(Child):
    """A container where the embedded platform has a child process. Its port has the same number inside and outside, is
    chosen beforehand (a server tells clients its own address), and is published on 127.0.0.1 only."""

    def __init__(self, log: Path, image: str, port: int) -> None:
        super().__init__(log)
        self._image = image
        self._port = port
        self._container: Any = None
        self._testcontainer: DockerContainer | None = None

    def run(self, environment: Mapping[str, str], command: Sequence[str] = ()) -> None:
        """Create and start it; later, start it again with its data. Returns at once. Raises PlatformError."""
        try:
            if self._container is not None:
                self._container.start()
                return
            engine = {"timeout": PATIENCE_SECONDS}
            self._testcontainer = DockerContainer(self._image, engine, env=dict(environment))
            self._testcontainer.with_command(list(command))
            # with_bind_ports() knows no address and would publish on all of them.
            self._testcontainer.ports[str(self._port)] = ("127.0.0.1", self._port)  # type: ignore[assignment]
            self._container = self._testcontainer.start().get_wrapped_container()
        except ImageNotFound as error:
            raise PlatformError(f"There is no image {self._image}.", f"`docker pull {self._image}`") from error
        except (DockerException, OSError) as error:
            raise PlatformError(
                f"Docker did not start {self._image}: {error}.", "`docker info` may know why."
            ) from error

    @property
    def pid(self) -> int | None:
        """Of its first process, in the machine that runs it; None when it does not run."""
        return self._state().get("Pid") or None

    @property
    def end(self) -> str:
        state = self._state()
        code = state.get("ExitCode", 0)
        if not state or state.get("Running"):
            return ""
        return f"was killed by {signal.Signals(code - 128).name}" if code > 128 else f"ended with exit code {code}"

    def stop(self, ask: signal.Signals = signal.SIGTERM, timeout: float = 15.0) -> None:
        if self.pid is not None:
            self._container.kill(ask.name)
            try:
                self._container.wait(timeout=timeout)
            except OSError:  # requests' errors, that of the timeout too
                self.kill()

    def kill(self) -> None:
        if self.pid is not None:
            self._container.kill()
            self._container.wait()

    def remove(self) -> None:
        """With its data."""
        if self._container is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_bytes(self._container.logs())
        if self._testcontainer is not None:
            self._testcontainer.stop()
        self._container = self._testcontainer = None

    def _state(self) -> dict[str, Any]:
        if self._container is None:
            return {}
        self._container.reload()
        state: dict[str, Any] = self._container.attrs["State"]
        return state


class Postgres(postgres.Postgres):
    """The settings, passwords and databases of the embedded one."""

    def __init__(self, directory: Path, port: int, log: Path) -> None:
        super().__init__(directory, port, log)
        self._child: Container = Container(log, POSTGRES_IMAGE, port)

    async def start(self, timeout: float = PATIENCE_SECONDS) -> None:
        await super().start(timeout)

    def _initialise(self) -> None:
        """The image does it, at its first start."""

    def _spawn(self) -> None:
        own = {"listen_addresses": "*", "unix_socket_directories": "/var/run/postgresql", "port": str(self.port)}
        settings = postgres.SETTINGS | own
        environment = {
            "POSTGRES_PASSWORD": self._password("postgres"),
            "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256",
        }
        self._child.run(environment, ["postgres", *(f"-c{name}={value}" for name, value in settings.items())])

    def remove(self) -> None:
        self._child.remove()


class Kafka(kafka.Kafka):
    """The settings of the embedded one, but for what only the image knows."""

    def __init__(self, directory: Path, port: int, controller_port: int, log: Path) -> None:
        super().__init__(directory, port, controller_port, log)
        self._child: Container = Container(log, KAFKA_IMAGE, port)

    async def start(self, timeout: float = PATIENCE_SECONDS) -> None:
        await super().start(timeout)

    async def prepare(self) -> None:
        """The image has the jars."""

    async def _spawn(self) -> None:
        own = {
            "listeners": f"PLAINTEXT://:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "log.dirs": "/var/lib/kafka/data",
        }
        settings = self._settings() | own
        environment = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
        self._child.run(environment | {"CLUSTER_ID": kafka.CLUSTER_ID, "KAFKA_HEAP_OPTS": "-Xms64m -Xmx384m"})

    def remove(self) -> None:
        self._child.remove()


class ContainerPlatform(Platform):
    """PostgreSQL and Kafka in containers; what is kept on this machine (passwords, logs) is below ``state_dir``."""

    postgres: Postgres
    broker: Kafka

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        logs = self.state.logs
        self.postgres = Postgres(state_dir / "postgres", free_port(), logs / "postgres.log")
        self.broker = Kafka(state_dir / "kafka", free_port(), free_port(), logs / "kafka.log")

    def stop(self) -> None:
        """Stop what runs, Kafka first, and remove it with its data. The logs stay."""
        super().stop()
        self.broker.remove()
        self.postgres.remove()
