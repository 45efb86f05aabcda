"""The four services as processes: which modules they are, what environment they get, when they are ready."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from ftgo_local.broker_file import VARIABLE
from ftgo_local.child import Child, last_lines
from ftgo_local.cures import cure
from ftgo_local.environment import settle
from ftgo_local.errors import PlatformError
from ftgo_local.unprivileged import service_user

SERVICES = ("consumer", "kitchen", "accounting", "order")


@dataclass(frozen=True)
class ServiceSpec:
    """How one service is migrated and started. Both commands run with the environment of ``service_environment``."""

    name: str
    migrate: Sequence[str]
    run: Sequence[str]


def ftgo_services() -> list[ServiceSpec]:
    """The services of this repository, each in one process: HTTP, consumers and relay."""
    return [
        ServiceSpec(
            name,
            migrate=(sys.executable, "-m", f"ftgo_{name}.entrypoints.migrate"),
            run=(sys.executable, "-m", f"ftgo_{name}.entrypoints.service"),
        )
        for name in SERVICES
    ]


def tails_the_log() -> bool:
    """Whether the services will, by the environment that they inherit."""
    return os.environ.get("FTGO_RELAY") == "log-tailing"


def service_environment(
    name: str, port: int, dsn: str, broker: str, relay_dsn: str | None = None, broker_file: Path | None = None
) -> dict[str, str]:
    """Our own environment with what tells this service where it listens, where its database is and where the broker is
    (a URL; HOST:PORT is Kafka); but without what the shell says to other programs. ``broker_file`` goes before the
    URL, which stays for jobs."""
    prefix = f"FTGO_{name.upper()}"
    ours = dict(os.environ)
    settle(ours)
    for other in ("FTGO_BROKER_URL", "FTGO_KAFKA_BOOTSTRAP", VARIABLE):
        ours.pop(other, None)
    relay = {f"{prefix}_RELAY_DATABASE_URL": relay_dsn} if relay_dsn else {}
    return {
        "FTGO_LOG_FORMAT": "json",
        **ours,
        f"{prefix}_PORT": str(port),
        f"{prefix}_DATABASE_URL": dsn,
        **relay,
        **({VARIABLE: str(broker_file)} if broker_file else {}),
        "FTGO_BROKER_URL" if "://" in broker else "FTGO_KAFKA_BOOTSTRAP": broker,
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


class Service:
    """One service process. ``start`` returns at once; ``wait_until_ready`` tells when it takes requests."""

    def __init__(self, spec: ServiceSpec, port: int, environment: Mapping[str, str], log: Path, cwd: Path) -> None:
        self.name = spec.name
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._spec = spec
        self._environment = {**environment, "HOME": str(cwd)}  # not the user's, which root's replacement cannot enter
        self._cwd = cwd
        self._child = Child(log)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def end(self) -> str:
        return self._child.end

    async def start(self) -> None:
        self._child.spawn(self._spec.run, cwd=self._cwd, env=self._environment, **service_user())

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 15 s. Returns when it is gone."""
        self._child.stop()

    def kill(self) -> None:
        self._child.kill()

    async def migrate(self, owner_dsn: str | None = None) -> None:
        """Bring its database to the newest schema, as the owner, whom the running service does not know. May repeat.
        Raises PlatformError with the migration's own log."""
        owner = {f"FTGO_{self.name.upper()}_MIGRATION_DATABASE_URL": owner_dsn} if owner_dsn else {}
        log = self.log.with_name(f"migrate-{self.name}.log")
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *self._spec.migrate,
                stdout=file,
                stderr=file,
                env={**self._environment, **owner},
                cwd=self._cwd,
                **service_user(),
            )
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise
        if code != 0:
            raise PlatformError(
                f"The migration of {self.name} ended with exit code {code}.",
                cure(last_lines(log, 50)),
                log,
            )

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Until /readyz answers 200. Raises PlatformError when the process ends before, or the time is over."""
        try:
            async with asyncio.timeout(timeout), httpx.AsyncClient(timeout=5, trust_env=False) as client:
                while not await is_ready(client, self.url):
                    if self.pid is None:
                        raise PlatformError(f"The service {self.name} {self.end}.", cure(self._child.said), self.log)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise PlatformError(
                f"The service {self.name} was not ready within {timeout:.0f} s.", cure(self._child.said), self.log
            ) from None


async def is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def ready_now(url: str) -> bool:
    async def ask() -> bool:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            return await is_ready(client, url)

    return asyncio.run(ask())
