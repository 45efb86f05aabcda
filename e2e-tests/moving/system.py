"""A copy of the whole system under load, and what it leaves behind to be judged."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftgo_contracts.channels import READERS
from ftgo_local.platform import Platform
from ftgo_local.scenes.control import Control
from ftgo_local.services import SERVICES
from ftgo_local.state import StateDirectory
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import BrokerRefuses
from topology import SUBSCRIPTIONS
from witness import DatabaseWitness, read_tables, unrest_of_databases

PORT_OFFSET = int(os.environ.get("FTGO_MOVING_PORT_OFFSET", "700"))

STILL = 6
"""So often in a row nothing is to be seen in the databases, where the broker cannot tell what is under way."""


class System:
    """What `ftgo up` runs in this state directory, driven by commands as a user types them. ``urls`` is what the load
    asks for."""

    def __init__(self, path: Path, evidence: Path) -> None:
        self.state = StateDirectory(path)
        self.evidence = evidence
        self.control = Control(self.state)
        self.urls: Mapping[str, str] = {}
        self._witnesses: list[DatabaseWitness] = []
        self._still = 0
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FTGO_BROKER")},
            "FTGO_STATE_DIR": str(path),
            "FTGO_PORT_OFFSET": str(PORT_OFFSET),
            # A name that a service has again when it was killed: Kafka gives its partitions back at once.
            "FTGO_INSTANCE": "moving",
        }

    def ftgo(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "ftgo_local", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, text=True, stdout=pipe, stderr=subprocess.STDOUT)

    async def run(self, *arguments: str) -> str:
        """The command's words. Raises AssertionError, with them, when it fails."""
        process = self.ftgo(*arguments)
        said, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, said
        return said

    async def start(self, broker: str) -> None:
        await self.run("up", "--detach", "--broker", broker)
        ports = self.control.state.ports
        self.urls = {name: f"http://127.0.0.1:{ports[name]}" for name in SERVICES}
        postgres = Platform(self.state.path, ports=ports).postgres
        self._dsns = {service: postgres.dsn(f"ftgo_{service}") for service in SERVICES}
        self._witnesses = [DatabaseWitness(service, dsn, self.evidence) for service, dsn in self._dsns.items()]
        for witness in self._witnesses:
            await witness.start()

    @property
    def addresses(self) -> dict[str, Any]:
        """Where the services are told to find their brokers."""
        found: dict[str, Any] = json.loads((self.state.path / "addresses" / "brokers.json").read_text())
        return found

    async def unrest(self) -> list[str]:
        """What is still under way, in words."""
        found = await unrest_of_databases(self._dsns)
        transport = transport_at(self.control.state.broker_url)
        try:
            left = {lane: count for lane, count in (await transport.unread(READERS)).items() if count != 0}
            found += [f"{lane}: {count} unread" for lane, count in left.items()]
        except BrokerRefuses:  # it cannot tell
            self._still = 0 if found else self._still + 1
            if self._still < STILL:
                found.append("nothing to be seen, but it may be under way")
        finally:
            await transport.close()
        return found

    async def keep_evidence(self, unrest: list[str]) -> None:
        """Write down what the checker reads."""
        for witness in self._witnesses:
            await witness.finish()
        for service, dsn in self._dsns.items():
            await read_tables(service, dsn, self.evidence)
        (self.evidence / "run.json").write_text(json.dumps({"subscriptions": SUBSCRIPTIONS}))
        (self.evidence / "end.json").write_text(json.dumps({"unrest": unrest}))
