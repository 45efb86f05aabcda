"""The jars of Kafka, ActiveMQ and ElasticMQ: Maven coordinates in ``NAME.lock``, fetched by jgo.

Each is verified by its SHA-256 at every start.

jgo knows where Maven repositories are (its own settings file may name others) and keeps what it downloads. The lock
file makes two starts of one release run the same bytes, and spares the first start the walk through 200 POM files.
``python -m ftgo_local.jars FOLDER NAME`` fetches; ``python -m ftgo_local.jars lock`` writes all files anew.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftgo_local.cures import cure
from ftgo_local.errors import PlatformError

KAFKA_VERSION = "4.1.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
ACTIVEMQ_VERSION = "6.3.1"
ACTIVEMQ = [f"org.apache.activemq:activemq-{part}:{ACTIVEMQ_VERSION}" for part in ("broker", "stomp", "kahadb-store")]
ACTIVEMQ += [f"org.apache.activemq:activemq-console:{ACTIVEMQ_VERSION}"]
ACTIVEMQ_LOG_BACKEND = "org.slf4j:slf4j-jdk14:2.0.18"
"""Of the version of SLF4J that ActiveMQ brings; it writes to the standard error, and is a part of Java otherwise."""
ELASTICMQ_VERSION = "1.7.1"
ELASTICMQ = f"org.elasticmq:elasticmq-server_2.13:{ELASTICMQ_VERSION}"
LOG_BACKEND = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
"""Kafka logs through SLF4J and leaves the choice of a backend to whoever runs it; its own archive carries this one."""
LOCKS = Path(__file__).parent
_DOWNLOADS_AT_ONCE = 8


def locked_jars(name: str = "kafka") -> dict[str, str]:
    """Coordinates -> SHA-256, in the order of the class path."""
    lines = (line for line in (LOCKS / f"{name}.lock").read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split() for line in lines)


def lock_digest(name: str = "kafka") -> str:
    """A short name for this set of jars."""
    return _sha256(LOCKS / f"{name}.lock")[:12]


def jars(spare: Path, name: str = "kafka") -> list[Path]:
    """The verified jars, downloaded when missing. Raises PlatformError when one cannot be had or is not the locked one.

    They are in Maven's cache; nothing is written there when all are. What is missing goes to ``spare`` when the cache
    cannot be written, or there is no home directory that we may enter. Processes that fetch at the same time wait for
    each other.
    """
    if not os.access(os.environ.get("HOME", ""), os.R_OK | os.X_OK):
        os.environ["HOME"] = str(spare)  # another user's, as after `su`: jgo looks there for its settings
        os.environ.setdefault("M2_REPO", str(spare))
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    context = MavenContext(repo_cache=settings.repo_cache, timeout=30)
    context.remote_repos.update(settings.repositories)
    locked = locked_jars(name)
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        cached = list(pool.map(lambda entry: _cached(context, *entry), locked.items()))
        found = [path for path in cached if path]
        if len(found) < len(cached):
            if not _may_write(context.repo_cache):
                context.repo_cache = spare
            with _one_at_a_time(context.repo_cache):
                found = list(pool.map(lambda path, entry: path or _jar(context, *entry), cached, locked.items()))
    for path in found:
        if os.pathsep in str(path):
            raise PlatformError(f"Java cannot read {path}: a name with {os.pathsep} ends there.", "Set M2_REPO.")
    return found


def _may_write(directory: Path) -> bool:
    """Of a folder that is not there yet: whether it can be made."""
    while not os.path.lexists(directory) and directory != directory.parent:
        directory = directory.parent
    return os.access(directory, os.W_OK | os.X_OK)


def _artifact(context: Any, coordinates: str) -> Any:
    group, name, version = coordinates.split(":")
    return context.project(group, name).at_version(version).artifact()


def _cached(context: Any, coordinates: str, sha256: str) -> Path | None:
    """Only if it is there already, and the locked one."""
    path = Path(_artifact(context, coordinates).cached_path)
    return path if path.exists() and _sha256(path) == sha256 else None


def _jar(context: Any, coordinates: str, sha256: str) -> Path:
    artifact = _artifact(context, coordinates)
    # The second attempt is for a file of an interrupted download: it is there, and too short.
    for attempt in (1, 2):
        try:
            path = Path(artifact.resolve())
        except Exception as error:  # whatever jgo or its HTTP client says
            raise PlatformError(
                f"{coordinates} cannot be downloaded: {str(error)[:200]}.",
                cure(
                    error,
                    "The jars come from Maven once; is there a network, and does a proxy or mirror need setting?",
                ),
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
    """Write all files: the SHA-256 of each jar that a broker needs."""
    import jgo

    # Apart from each other: resolved together, the logger's parent POM would set the versions of Kafka's dependencies.
    kafka = [*jgo.resolve(KAFKA), jgo.resolve(LOG_BACKEND)[0]]
    _write_lock("kafka", f"Kafka {KAFKA_VERSION}", kafka)
    activemq = [artifact for part in ACTIVEMQ for artifact in jgo.resolve(part)]
    _write_lock("activemq", f"ActiveMQ {ACTIVEMQ_VERSION}", [*activemq, jgo.resolve(ACTIVEMQ_LOG_BACKEND)[0]])
    _write_lock("elasticmq", f"ElasticMQ {ELASTICMQ_VERSION}", jgo.resolve(ELASTICMQ))


def _write_lock(name: str, title: str, artifacts: Sequence[Any]) -> None:
    """Check each jar, once, against the repository's own SHA-1."""
    import httpx

    lines = {}
    for artifact in artifacts:
        coordinates = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
        if coordinates in lines:
            continue
        path = Path(artifact.resolve())
        repository = next(iter(artifact.context.remote_repos.values()))
        url = f"{repository}/{artifact.component.path_prefix.as_posix()}/{artifact.filename}.sha1"
        published = httpx.get(url, timeout=30).raise_for_status().text.split()[0]
        if published != hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest():
            raise PlatformError(f"{path} differs from what {repository} publishes.", "Delete it and lock again.")
        lines[coordinates] = _sha256(path)
    head = f"# The class path of {title}, written by: python -m ftgo_local.jars lock"
    text = "\n".join([head, *(f"{coordinates} {digest}" for coordinates, digest in lines.items())])
    (LOCKS / f"{name}.lock").write_text(text + "\n")


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["lock"]:
            write_lock()
        else:
            print(*jars(Path(sys.argv[1]), *sys.argv[2:]), sep="\n")
    except (PlatformError, OSError) as error:
        sys.exit(str(error))
