"""A private copy of the whole system for one benchmark: started by ``ftgo up``, stopped and deleted at its end."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ftgo_local.platform import Platform

SERVICES = ("consumer", "kitchen", "accounting", "order")


class Deployment:
    """``with Deployment(700) as system``: four services, PostgreSQL and Kafka on ports of their own, with empty data.

    ``environment`` is added to that of all processes. ``broker`` is one that ``ftgo up`` can start; ``bootstrap`` is
    there on Kafka only. Loopback only, as everything that ``ftgo`` starts."""

    def __init__(
        self, port_offset: int, environment: Mapping[str, str] | None = None, *, broker: str = "kafka"
    ) -> None:
        self._offset = port_offset
        self._broker = broker
        self._extra = dict(environment or {})

    def __enter__(self) -> "Deployment":
        self.directory = Path(tempfile.mkdtemp(prefix="ftgo-bench-"))
        try:
            self._ftgo("up", "--detach", "--broker", self._broker)
            status: dict[str, Any] = json.loads(self._ftgo("status", "--json"))
        except BaseException:
            self._stop()
            raise
        self.ports = {name: int(status["services"][name]["url"].rsplit(":", 1)[1]) for name in SERVICES}
        self.pids: dict[str, int] = {name: status["services"][name]["pid"] for name in SERVICES}
        self.pids |= {name: pid for name in ("postgres", self._broker) if (pid := status[name].get("pid"))}
        self.bootstrap: str = status[self._broker].get("bootstrap", "")
        postgres = Platform(self.directory, port_offset=self._offset).postgres
        self.superuser_dsn = postgres.dsn()
        self.order_dsn = postgres.dsn("ftgo_order")
        self.postgres_log = postgres.log
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        try:
            self._ftgo("reset", "--yes")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _ftgo(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "ftgo_local", *arguments, "--port-offset", str(self._offset)]
        environment = {**os.environ, "FTGO_STATE_DIR": str(self.directory), **self._extra}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ftgo {arguments[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout
