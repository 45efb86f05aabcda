"""A real Apache ActiveMQ Classic: jars from Maven by their coordinates, Java from a PyPI wheel, no file of settings."""

from urllib.parse import urlencode

from ftgo_local.brokers.server import Server, told
from ftgo_local.environment import server_environment
from ftgo_local.jars import ACTIVEMQ_VERSION
from ftgo_local.java import class_path, java
from ftgo_local.unprivileged import drop_privileges, owned_directory

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


class ActiveMQ(Server):
    """One broker with its data below ``directory``, with STOMP on 127.0.0.1 only and without passwords.

    What was confirmed survives ``kill -9`` and a loss of power: KahaDB writes its journal and calls fsync before it
    answers (``enableJournalDiskSyncs``, its default). Acknowledgements of consumers are not synced: after either, the
    last of them are forgotten and their messages are given again.
    """

    name = "activemq"
    title = "ActiveMQ"
    _class_path = ""

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.port}"

    @staticmethod
    def known_version() -> str:
        return f"ActiveMQ Classic {ACTIVEMQ_VERSION}"

    async def prepare(self) -> None:
        """Fetch the jars, which ``start`` does otherwise: the one step that may take long. Raises PlatformError."""
        if not self._class_path:
            self._class_path = await class_path(self.directory.parent / "jars", "activemq", ACTIVEMQ_VERSION)

    def _run(self) -> None:
        home = owned_directory(self.directory).resolve()
        # Folders are relative to the one where it runs: a path of the user's has a meaning in an address.
        address = f"broker:(stomp://127.0.0.1:{self.port})?{urlencode(_SETTINGS)}"
        main = ["org.apache.activemq.console.command.ShellCommand", "start", address]
        command = [java(), *_JVM, "-Dactivemq.data=data", "-cp", self._class_path, *main]
        self._child.spawn(command, cwd=home, env=server_environment(home), **drop_privileges())

    async def _answers(self) -> bool:
        return (await told(self.port, _GREETING)).startswith(b"CONNECTED")
