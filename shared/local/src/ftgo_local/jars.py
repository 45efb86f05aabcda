"""Kafka's jars: named by Maven coordinates in ``kafka.lock``, downloaded by jgo, verified by SHA-256 at every start.

jgo knows where Maven repositories are (its own settings file may name others) and keeps what it downloads. The lock
file makes two starts of one release run the same bytes, and spares the first start the walk through 200 POM files.
``python -m ftgo_local.jars`` fetches; ``python -m ftgo_local.jars lock`` writes the lock file for another version.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftgo_local.errors import PlatformError

KAFKA_VERSION = "4.1.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOG_BACKEND = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
"""Kafka logs through SLF4J and leaves the choice of a backend to whoever runs it; its own archive carries this one."""
LOCK_FILE = Path(__file__).with_name("kafka.lock")
_DOWNLOADS_AT_ONCE = 8


def locked_jars() -> dict[str, str]:
    """Coordinates -> SHA-256, in the order of the class path."""
    lines = (line for line in LOCK_FILE.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split() for line in lines)


def jars() -> list[Path]:
    """The verified jars, downloaded when missing. Raises PlatformError when one cannot be had or is not the locked one.

    Processes that fetch at the same time wait for each other.
    """
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    context = MavenContext(repo_cache=settings.repo_cache, timeout=30)
    context.remote_repos.update(settings.repositories)
    with _one_at_a_time(context.repo_cache), ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        return list(pool.map(lambda entry: _jar(context, *entry), locked_jars().items()))


def _jar(context: Any, coordinates: str, sha256: str) -> Path:
    group, name, version = coordinates.split(":")
    artifact = context.project(group, name).at_version(version).artifact()
    # The second attempt is for a file of an interrupted download: it is there, and too short.
    for attempt in (1, 2):
        try:
            path = Path(artifact.resolve())
        except Exception as error:  # whatever jgo or its HTTP client says
            raise PlatformError(
                f"{coordinates} cannot be downloaded: {str(error)[:200]}.",
                "Kafka's jars come from Maven once; is there a network, and does a proxy or mirror need setting?",
            ) from error
        if _sha256(path) == sha256:
            return path
        if attempt == 1:
            path.unlink()
    raise PlatformError(
        f"{path} is not the file this release was tested with (SHA-256 differs).",
        "Delete it and start again; if that does not help, the repository it comes from is not to be trusted.",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".ftgo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_lock() -> None:
    """Resolve Kafka and what it needs, check each jar against the repository's own SHA-1, and write their SHA-256."""
    import httpx
    import jgo

    lines = [f"# The class path of Kafka {KAFKA_VERSION}, written by: python -m ftgo_local.jars lock"]
    # Apart from each other: resolved together, the logger's parent POM would set the versions of Kafka's dependencies.
    for artifact in [*jgo.resolve(KAFKA), jgo.resolve(LOG_BACKEND)[0]]:
        path = Path(artifact.resolve())
        repository = next(iter(artifact.context.remote_repos.values()))
        url = f"{repository}/{artifact.component.path_prefix.as_posix()}/{artifact.filename}.sha1"
        published = httpx.get(url, timeout=30).raise_for_status().text.split()[0]
        if published != hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest():
            raise PlatformError(f"{path} differs from what {repository} publishes.", "Delete it and lock again.")
        coordinates = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
        lines.append(f"{coordinates} {_sha256(path)}")
    LOCK_FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["lock"]:
            write_lock()
        else:
            print(os.pathsep.join(str(jar) for jar in jars()))
    except PlatformError as error:
        sys.exit(str(error))
