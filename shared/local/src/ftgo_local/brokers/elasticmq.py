"""ElasticMQ, an emulation of Amazon SQS: jars from Maven by their coordinates, Java from a PyPI wheel.

It is no broker to choose: it shows the API's semantics on one machine (FIFO queues, message groups, visibility), and
nothing of AWS' speed, limits and storage. It has no SNS, asks for no credentials and holds all messages in memory."""

import httpx

from ftgo_local.brokers.server import Server
from ftgo_local.environment import server_environment
from ftgo_local.files import replace_if_different
from ftgo_local.jars import ELASTICMQ_VERSION
from ftgo_local.java import class_path, java
from ftgo_local.unprivileged import drop_privileges, hand_over, owned_directory

SETTINGS = "elasticmq.conf"

# A laptop's emulation: no parallel collector, no optimising compiler. The heap holds all messages that wait.
_JVM = ["-Xmx768m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]

_SETTINGS = """\
include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = {limits} }}
rest-stats {{ enabled = false }}
generate-node-address = false
aws {{ region = elasticmq, accountId = 000000000000 }}
queues-storage {{ enabled = false }}
messages-storage {{ enabled = false }}
"""
"""``sqs-limits``: its strict ones are those of before 2025, 256 KiB for a message; the relaxed ones know no size. With
its storage on (H2), it gives a FIFO queue's messages in another order after a restart: five of one request came as 0,
4, 3, 2, 1. So it is off."""


class ElasticMQ(Server):
    """One server below ``directory``, on 127.0.0.1 only. When it ends, its queues and messages are gone."""

    name = "sqs"
    title = "ElasticMQ"
    look_every = 0.1
    limits = "relaxed"
    _class_path = ""

    @property
    def url(self) -> str:
        """For a client. Nothing is signed, for there are no credentials; what a killed member had comes after 10 s."""
        return f"sqs://127.0.0.1:{self.port}?region=elasticmq&signed=no&visibility=10"

    @staticmethod
    def known_version() -> str:
        return f"ElasticMQ {ELASTICMQ_VERSION}, an emulation of the AWS API"

    async def prepare(self) -> None:
        """Fetch the jars, which ``start`` does otherwise: the one step that may take long. Raises PlatformError."""
        if not self._class_path:
            self._class_path = await class_path(self.directory.parent / "jars", "elasticmq", ELASTICMQ_VERSION)

    def _run(self) -> None:
        home = owned_directory(self.directory).resolve()
        replace_if_different(home / SETTINGS, _SETTINGS.format(port=self.port, limits=self.limits))
        hand_over(home / SETTINGS)
        command = [java(), *_JVM, f"-Dconfig.file={SETTINGS}", "-cp", self._class_path]
        main = "org.elasticmq.server.Main"
        self._child.spawn([*command, main], cwd=home, env=server_environment(home), **drop_privileges())

    async def _answers(self) -> bool:
        address = f"http://127.0.0.1:{self.port}/health"
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
                return (await client.get(address)).is_success
        except httpx.TransportError:
            return False
