"""What the servers of all brokers have in common: one process with its data in one folder, started, stopped, killed."""

import asyncio
import re
import subprocess
from pathlib import Path

from ftgo_local.answering import wait_until_it_answers
from ftgo_local.child import Child
from ftgo_local.errors import PlatformError


def version_of(program: Path) -> str:
    """The number in what it says of itself. Raises PlatformError when it cannot be run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise PlatformError(f"{program} cannot be run: {error}.", "`make clean up` installs it anew.") from error
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.strip()


async def told(port: int, hello: bytes = b"", count: int | None = None) -> bytes:
    """The first line, or so many bytes, that a server says after this greeting; empty where nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(hello)
        return await (reader.readline() if count is None else reader.read(count))
    except OSError:
        return b""
    finally:
        writer.close()


class Server:
    """A subclass says how its process is started (``_run`` or ``_spawn``), and whether it answers (``_answers``). Its
    data are below ``directory``, and it listens on ``port`` of 127.0.0.1 only."""

    name: str
    title: str
    look_every = 0.05
    """Seconds, while it starts."""

    def __init__(self, directory: Path, port: int, log: Path | None = None) -> None:
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

    async def prepare(self) -> None:
        """Find or fetch what ``start`` needs, which does it otherwise. Raises PlatformError."""
        raise NotImplementedError

    async def start(self, timeout: float = 60.0) -> None:
        """Start, and wait until a client is answered. Raises PlatformError; nothing runs then, nor when cancelled."""
        await self.prepare()
        try:
            await self._spawn()
            await wait_until_it_answers(self.title, self._child, self._answers, timeout, self.look_every)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 20.0) -> None:
        """Orderly stop (SIGTERM), then SIGKILL."""
        self._child.stop(timeout=timeout)

    def kill(self) -> None:
        """kill -9, as in a crash."""
        self._child.kill()

    async def _spawn(self) -> None:
        await asyncio.to_thread(self._run)

    def _run(self) -> None:
        raise NotImplementedError

    async def _answers(self) -> bool:
        raise NotImplementedError
