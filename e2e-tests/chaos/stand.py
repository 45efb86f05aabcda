"""The test stand: a private copy of the whole system, with a proxy in front of each database and of the broker."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ftgo_local.platform import Platform
from ftgo_local.ports import chosen_ports
from ftgo_local.progress import Progress
from ftgo_local.services import SERVICES
from ftgo_local.state import StateDirectory
from proxy import Proxy

START_SECONDS = 180.0
STOP_SECONDS = 90.0
_PROXY_PORTS = {"accounting": 15445, "consumer": 15441, "broker": 19094, "kitchen": 15443, "order": 15442}
"""In the order in which a schedule counts them."""
_KAFKA_BEHIND = 19095


class Stand:
    """``async with Stand(6000, run_directory) as stand``: everything runs. Ports are moved by the offset.
    ``small_disks``: the units that get a disk of their own in memory, and its megabytes.

    Services reach PostgreSQL and the broker through proxies only; the harness reaches both directly. Processes are kept
    by the supervisor of ``ftgo up``: what is killed here comes back by itself."""

    def __init__(
        self,
        offset: int,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        *,
        broker: str = "kafka",
        small_disks: Mapping[str, int] | None = None,
    ) -> None:
        self.broker = broker
        self.directory = directory
        self.state = StateDirectory(Path(tempfile.mkdtemp(prefix="ftgo-chaos-")))
        self.ports = chosen_ports(offset, broker=broker)
        self.urls = {name: f"http://127.0.0.1:{self.ports[name]}" for name in SERVICES}
        self._proxy_ports = {name: port + offset for name, port in _PROXY_PORTS.items()}
        self._broker_behind = _KAFKA_BEHIND + offset if broker == "kafka" else self.ports[broker]
        self.proxies = {
            name: Proxy(port, self._broker_behind if name == "broker" else self.ports["postgres"])
            for name, port in self._proxy_ports.items()
        }
        self._environment = dict(environment or {})
        # The logs of Kafka, which lets them be elsewhere; and all of PostgreSQL: its home, as ``Platform`` lays it out.
        self._megabytes = small_disks or {}
        self._small_disks = {u: self.state.path / ("small" if u == "broker" else u) for u in self._megabytes}
        self._process: subprocess.Popen[bytes] | None = None
        platform = Platform(self.state.path, ports=self.ports, broker=broker)
        self._postgres = platform.postgres
        self.broker_url = platform.broker.url

    # -- the units, by name: a service, "postgres", or the broker's ---------------------------------------------------

    def pid(self, name: str) -> int | None:
        """The process that runs now, as far as the supervisor has noticed."""
        state = self.state.read()
        identity = state.units[name].identity if state and name in state.units else None
        return identity.pid if identity and identity.process() else None

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal to a unit; returns its pid, or None when it is not running just now."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def running(self) -> bool:
        """Whether the supervisor sees all units running."""
        state = self.state.read()
        return state is not None and all(u.status == "running" for u in state.units.values())

    def restarts(self) -> dict[str, int]:
        state = self.state.read()
        return {name: unit.restarts for name, unit in state.units.items()} if state else {}

    def superuser_dsn(self, service: str) -> str:
        """Of the service's database, past the proxy."""
        return self._postgres.dsn(f"ftgo_{service}")

    @property
    def ballast(self) -> dict[str, Path]:
        """A file to write on the small disk of each unit that has one."""
        return {unit: disk / "ballast" for unit, disk in self._small_disks.items()}

    # -- start and end ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> "Stand":
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        self.state.create()
        for unit, disk in self._small_disks.items():
            disk.mkdir()
            size = f"size={self._megabytes[unit]}m"
            _run(["mount", "-t", "tmpfs", "-o", size, "ftgo-chaos", str(disk)])
        for proxy in self.proxies.values():
            await proxy.start()
        config = self.state.path / "chaos.json"
        config.write_text(
            json.dumps(
                {
                    "directory": str(self.state.path),
                    "ports": self.ports,
                    "proxies": self._proxy_ports,
                    "broker": self.broker,
                    "broker_settings": self._kafka_settings() if self.broker == "kafka" else {},
                }
            )
        )
        log = (self.state.logs / "supervise.log").open("wb")
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, str(Path(__file__).with_name("supervise.py")), str(config)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        log.close()
        async with asyncio.timeout(START_SECONDS):
            while not (state := self.state.read()) or state.phase != "ready":
                if self._process.poll() is not None:
                    raise RuntimeError(f"the system did not start: see {self._keep_logs()}")
                await asyncio.sleep(0.2)

    def _kafka_settings(self) -> dict[str, str]:
        """A second listener whose advertised address is the proxy: whoever begins at the proxy stays behind it."""
        plain, controller = self.ports["kafka"], self.ports["kafka_controller"]
        settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},"
            f"PROXIED://127.0.0.1:{self._broker_behind}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{self._proxy_ports['broker']}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }
        if "broker" in self._small_disks:
            settings["log.dirs"] = str(self._small_disks["broker"] / "kafka")
        return settings

    async def _stop(self) -> None:
        for proxy in self.proxies.values():
            proxy.heal()
        if self._process is not None:
            for name in (*SERVICES, "postgres", self.broker):
                self.signal(name, signal.SIGCONT)
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.to_thread(self._process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            from ftgo_local.launch import down

            await asyncio.to_thread(down, self.state, Progress())
        for proxy in self.proxies.values():
            await proxy.stop()
        self._keep_logs()
        for disk in self._small_disks.values():
            if disk.is_mount():
                _run(["umount", "-l", str(disk)])
        self.state.delete()
        shutil.rmtree(self.state.path, ignore_errors=True)

    def _keep_logs(self) -> Path:
        target = self.directory / "logs"
        if self.state.logs.exists():
            shutil.copytree(self.state.logs, target, dirs_exist_ok=True)
        return target


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
