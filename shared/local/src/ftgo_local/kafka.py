"""A real Apache Kafka, one node in KRaft mode: jars from Maven by their coordinates, Java from a PyPI wheel."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from ftgo_local.brokers.server import Server
from ftgo_local.cures import cure
from ftgo_local.environment import server_environment
from ftgo_local.errors import PlatformError
from ftgo_local.files import replace_if_different
from ftgo_local.jars import KAFKA_VERSION
from ftgo_local.java import class_path, java
from ftgo_local.unprivileged import (
    drop_privileges,
    hand_over,
    owned_directory,
)

CLUSTER_ID = "ZnRnby1pbi1weXRob24tMQ"
"""The same everywhere: it guards against mixing up data directories of different clusters, and here is only one."""

# A laptop's Kafka: small heap, no parallel collector, no optimising compiler. Starts in 3 s and stays below 400 MB.
_JVM = [
    "-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
    # What Kafka 4.1 does and Java 25 warns about, a paragraph per start.
    "--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED",
]  # fmt: skip

LIMITS: Mapping[str, str] = {
    # A request's memory is taken when its size is announced, before any of it has come. FTGO's relays send requests of
    # 1 MB (``ftgo_messaging.transports.kafka.publisher.REQUEST_BYTES``), everything else is small.
    "socket.request.max.bytes": "2000000",
    # All requests together, of a heap of 320 MB or more. When they are used up, nothing new is read.
    "queued.max.request.bytes": "64000000",
    # Whoever stops in the middle of a request gives its memory back after that. A client that is closed connects again.
    "connections.max.idle.ms": "60000",
}
"""The same in every deployment (a test compares): what connections may cost that send nothing, or half a request."""

CONNECTIONS_PER_ADDRESS = 30
"""``max.connections.per.ip`` where each process has an address of its own: so no address alone can use up all memory of
requests. A process of FTGO has up to 10."""

_CONNECTIONS = 300
"""The same here, where all that runs has one address: it bounds, but does not keep one client from all the rest."""

PROPERTIES = "server.properties"
LOGGING = "log4j2.json"

_LOGGING = {
    "Configuration": {
        "status": "warn",
        "shutdownHook": "disable",
        "Appenders": {"Console": {"name": "out", "PatternLayout": {"pattern": "%d{ISO8601} %p %m (%c{1})%n"}}},
        "Loggers": {
            "Root": {"level": "warn", "AppenderRef": [{"ref": "out"}]},
            "Logger": [{"name": "kafka.server.KafkaRaftServer", "level": "info"}],
        },
    }
}


class Kafka(Server):
    """One broker with its data below ``directory``, on 127.0.0.1 only, without creation of topics on first use.

    ``kill -9`` is survived. A loss of power may lose the last moments: Kafka leaves flushing to the operating system
    and relies on replicas, and a single broker has none.
    """

    name = "kafka"
    title = "Kafka"
    look_every = 0.1

    def __init__(self, directory: Path, port: int, controller_port: int, log: Path | None = None) -> None:
        super().__init__(directory, port, log)
        self.extra_settings: Mapping[str, str] = {}  # of server.properties, over ours: another listener, say
        self.controller_port = controller_port
        self._class_path = ""

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    def known_version(self) -> str:
        """Without fetching anything; empty when only that would tell."""
        return KAFKA_VERSION

    async def prepare(self) -> None:
        """Fetch the jars, which ``start`` does otherwise: the one step that may take long. Raises PlatformError."""
        if not self._class_path:
            self._class_path = await class_path(self.directory.parent / "jars", "kafka", KAFKA_VERSION)

    async def _spawn(self) -> None:
        """Format the storage if it is new, and start."""
        await asyncio.to_thread(self._configure)
        if not (self.directory / "formatted").exists():
            await self._format()
        home = self.directory.resolve()
        self._child.spawn(
            self._java("kafka.Kafka", PROPERTIES), cwd=home, env=server_environment(home), **drop_privileges()
        )

    def _java(self, *arguments: str) -> list[str]:
        return [
            java(),
            *_JVM,
            f"-Dlog4j2.configurationFile={LOGGING}",
            "-cp",
            self._class_path,
            *arguments,
        ]

    def _configure(self) -> None:
        """Write the files of settings. Folders in them are relative to the one where Kafka runs: a comma or a backslash
        has a meaning in Kafka's file, a percent sign in the name of Log4j's."""
        home = owned_directory(self.directory)
        replace_if_different(home / LOGGING, json.dumps(_LOGGING))
        replace_if_different(
            home / PROPERTIES, "".join(f"{name}={value}\n" for name, value in self._settings().items())
        )
        hand_over(home / LOGGING, home / PROPERTIES)

    def _settings(self) -> dict[str, str]:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed may register again only when its old session has ended.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            **LIMITS,
            "max.connections.per.ip": str(_CONNECTIONS),
        }
        return {**settings, **self.extra_settings}

    async def _format(self) -> None:
        """Write the cluster's first metadata. What a broken-off attempt left is set aside, never deleted."""
        data = self.directory / "data"
        if data.exists():
            data.rename(self.directory / f"data.incomplete.{secrets.token_hex(4)}")
        command = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", PROPERTIES)
        home, user = self.directory.resolve(), drop_privileges()
        environment = server_environment(home)
        done = await asyncio.to_thread(
            lambda: subprocess.run(  # noqa: S603 - our own command
                command, capture_output=True, text=True, check=False, cwd=home, env=environment, umask=0o077, **user
            )
        )
        if done.returncode != 0:
            said = done.stdout + done.stderr
            reason = " ".join(said.strip().splitlines()[-1:])
            raise PlatformError(f"Kafka could not format its storage: {reason}.", cure(said), self.log)
        (self.directory / "formatted").touch()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            await writer.wait_closed()
        except OSError:
            return False
        # Not the admin client: one whose start fails cannot be closed, and goes on connecting.
        client = AIOKafkaClient(bootstrap_servers=self.bootstrap)
        try:
            await client.bootstrap()
        except (OSError, KafkaError):
            return False
        finally:
            await client.close()
        return True
