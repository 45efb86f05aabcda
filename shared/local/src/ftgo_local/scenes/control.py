"""Hands on the processes of a running platform: stop, start, kill, and count rows in a service's database."""

import asyncio
import os
import signal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import httpx

from ftgo_local.brokers.kinds import kind_of
from ftgo_local.errors import NotRunningError
from ftgo_local.scenes.stage import Stage
from ftgo_local.seed import Urls
from ftgo_local.state import PlatformState, StateDirectory

if TYPE_CHECKING:
    # Needs packages of the embedded platform, and is imported where it is used: tests that name a Control, but are
    # skipped for the lack of one, run where these are not.
    from ftgo_local.platform import Platform


class Control:
    """The platform that ``ftgo up`` runs in this state directory."""

    def __init__(self, directory: StateDirectory) -> None:
        self.directory = directory

    @property
    def state(self) -> PlatformState:
        """What runs now. Raises NotRunningError."""
        state = self.directory.read()
        if state is None or not self.directory.is_locked():
            raise NotRunningError("ftgo is not up.", "`ftgo up` starts it.")
        return state

    @property
    def urls(self) -> Urls:
        return Urls.local(self.state.ports)

    @property
    def broker(self) -> str | None:
        """The name of the broker's unit; None when it runs elsewhere, and is not ours to stop."""
        state = self.state
        return state.broker if state.broker in state.units else None

    @property
    def without_broker(self) -> bool:
        """There is none, neither here nor elsewhere."""
        kind = kind_of(self.state.broker_url)
        return kind is not None and not kind.runs

    @property
    def kafka(self) -> str:
        """The bootstrap address, where the broker is Kafka."""
        return urlsplit(self.state.broker_url).netloc

    def stage(self, client: httpx.AsyncClient) -> Stage:
        """On this platform."""
        return Stage(client, self.urls, broker=self.state.broker_url, control=self)

    def _platform(self) -> "Platform":
        from ftgo_local.platform import Platform

        return Platform(self.directory.path, ports=self.state.ports)

    async def stop(self, unit: str) -> None:
        """As ``ftgo stop``: returns when the process is gone; it stays stopped."""
        await self._change(unit, run=False)

    async def start(self, unit: str) -> None:
        """As ``ftgo start``: returns when the unit is ready."""
        await self._change(unit, run=True)

    async def _change(self, unit: str, *, run: bool) -> None:
        from ftgo_local.launch import change

        await asyncio.to_thread(change, self.directory, unit, run=run)

    def kill(self, unit: str) -> int:
        """SIGKILL; the supervisor starts it again. Returns the pid of the dead."""
        identity = self.state.units[unit].identity
        if identity is None or identity.process() is None:
            raise NotRunningError(f"{unit} does not run just now.")
        os.kill(identity.pid, signal.SIGKILL)
        return identity.pid

    def dsn(self, service: str) -> str:
        """Of the service's database, with the service's own rights."""
        return self._platform().postgres.service_dsn(service)

    async def count(self, service: str, *tables: str) -> int:
        """Rows of these tables of the service's own database, all together."""
        connection = await asyncpg.connect(self.dsn(service))
        try:
            counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608
            return sum(counts)
        finally:
            await connection.close()
