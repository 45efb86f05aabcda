"""RabbitMQ's programs: those that are installed, or Debian's packages, unpacked into a folder without root.

apt verifies the signatures of what it downloads. What has been unpacked is kept, and used without a network.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftgo_local.cures import cure
from ftgo_local.errors import PlatformError
from ftgo_local.unprivileged import reachable_programs

_SERVERS = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
_ERLANG = "usr/lib/erlang"
_VERSIONS = "usr/versions"
_ELSEWHERE = (
    "Install RabbitMQ (its command rabbitmq-server is looked for on PATH), or set FTGO_BROKER_URL to one elsewhere."
)
_DOWNLOAD_SECONDS = 600


@dataclass(frozen=True)
class Programs:
    """``server`` is RabbitMQ's own script, not a package's wrapper, which would want to be root. ``erlang`` is the root
    of an Erlang that is not where it was built for; None: the one on PATH, or beside it."""

    server: Path
    erlang: Path | None
    version: str


async def programs(spare: Path) -> Programs:
    """Find them, or fetch them: below the user's cache, or below ``spare`` where that cannot be written. Raises
    PlatformError: why RabbitMQ cannot run here."""
    if installed := _installed():
        return installed
    cache = _cache(spare)
    if not (cache / _VERSIONS).exists():
        try:
            await _fetch(cache)
        except OSError as error:  # a full disk, say; or it took too long
            raise PlatformError(
                f"RabbitMQ's packages cannot be fetched: {error!r}.", cure(error, _ELSEWHERE)
            ) from error
    return _unpacked(await asyncio.to_thread(reachable_programs, cache, ["usr"], f"{_ERLANG}/bin/erl"))


def known_version(spare: Path) -> str:
    """Of what is installed or was fetched before; else empty. Raises PlatformError where nothing can be fetched."""
    if installed := _installed():
        return installed.version
    cache = _cache(spare)
    if (cache / _VERSIONS).exists():
        return _unpacked(cache).version
    _require_apt()
    return ""


def _installed() -> Programs | None:
    found = sorted(Path("/").glob(_SERVERS))
    command = shutil.which("rabbitmq-server")
    if not found and command:
        found = [Path(command).resolve()]
    if not found or not (shutil.which("erl") or (Path("/") / _ERLANG / "bin/erl").exists()):
        return None
    # Packages of all kinds have it in a folder that ends with the version.
    return Programs(found[-1], None, f"{found[-1].parent.parent.name.rpartition('-')[2]}, installed")


def _unpacked(root: Path) -> Programs:
    server = sorted(root.glob(_SERVERS))[-1]
    versions = (root / _VERSIONS).read_text().split()
    own = next(each for each in versions if each.startswith("rabbitmq-server="))
    return Programs(server, root / _ERLANG, f"{own.partition('=')[2]}, Debian's package")


def _cache(spare: Path) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/nonexistent") / ".cache")
    wanted = home / "ftgo" / "rabbitmq"
    above = next(p for p in (wanted, *wanted.parents) if os.path.lexists(p))
    return wanted if os.access(above, os.W_OK | os.X_OK) or (wanted / _VERSIONS).exists() else spare


def _require_apt() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise PlatformError(
            "RabbitMQ is not installed, and without apt-get and dpkg its packages cannot be fetched.", _ELSEWHERE
        )


async def _fetch(cache: Path) -> None:
    """Download and unpack; one process of a machine at a time. Broken off, nothing of it is there."""
    _require_apt()
    cache.parent.mkdir(parents=True, exist_ok=True)
    async with asyncio.timeout(_DOWNLOAD_SECONDS):
        with _one_at_a_time(cache.parent / ".rabbitmq.lock") as lock:
            while not _locked(lock):  # noqa: ASYNC110 - another process has it
                await asyncio.sleep(0.2)
            if (cache / _VERSIONS).exists():
                return  # another process was faster
            work = Path(tempfile.mkdtemp(prefix="rabbitmq-", dir=cache.parent))
            try:
                await _unpack(work)
                (work / "root").rename(cache)
            finally:
                await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


async def _unpack(work: Path) -> None:
    root, packages = work / "root", work / "packages"
    root.mkdir(mode=0o755)
    packages.mkdir()
    only = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    listed = await _run(["apt-cache", "depends", "--recurse", *only, "rabbitmq-server"], work)
    # The rest of what it depends on (libc, adduser ...) is part of every Debian, or not needed without an installation.
    names = sorted({line for line in listed.split("\n") if line.startswith(("erlang-", "rabbitmq-server"))})
    if not names:
        raise PlatformError("apt knows no package rabbitmq-server.", f"Run `apt-get update` as root. {_ELSEWHERE}")
    await _run(["apt-get", "download", "-q", *names], packages)
    files = sorted(packages.glob("*.deb"))
    for file in files:
        await _run(["dpkg", "-x", str(file), str(root)], work)
    fields = "--showformat=${Package}=${Version}\\n"
    versions = [await _run(["dpkg-deb", "-W", fields, str(file)], work) for file in files]
    for script in [*root.glob(f"{_ERLANG}/bin/erl"), *root.glob(f"{_ERLANG}/erts-*/bin/erl")]:
        # Debian's knows one place only; upstream's heeds ERL_ROOTDIR.
        text = script.read_text()
        script.write_text(text.replace(f"ROOTDIR=/{_ERLANG}\n", f"ROOTDIR=${{ERL_ROOTDIR:-/{_ERLANG}}}\n"))
    (root / _VERSIONS).write_text("".join(versions))


async def _run(command: list[str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        said = err.decode(errors="replace").strip()
        why = next((line for line in said.splitlines() if line.startswith("E:")), said[-200:])
        raise PlatformError(
            f"RabbitMQ's packages cannot be fetched: {command[0]} says {why!r}.",
            cure(said, f"Run `apt-get update` as root; is there a network? {_ELSEWHERE}"),
        )
    return out.decode(errors="replace")


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[int]:
    with path.open("w") as file:
        yield file.fileno()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
