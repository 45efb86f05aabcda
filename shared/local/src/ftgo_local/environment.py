"""What the user's shell says to other programs and ours must not hear: another PostgreSQL's address, a JVM's heap."""

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_FOREIGN = re.compile(
    r"PG[A-Z]+"  # of libpq and asyncpg: PGSSLMODE=require, and our server without TLS is refused
    r"|KAFKA_\w+|CLASSPATH|(JAVA_TOOL|JDK_JAVA|_JAVA)_OPTIONS"  # of every JVM: an agent, a heap
    r"|PYTHON(HOME|PATH|STARTUP|OPTIMIZE|WARNINGS|IOENCODING|USERBASE)"
    r"|LANGUAGE|LC_\w+"  # of messages in a log, and of Java's file names
)


def foreign(environment: Mapping[str, str]) -> list[str]:
    """The names of the variables that are ignored, sorted."""
    return sorted(name for name in environment if _FOREIGN.fullmatch(name))


def settle(environment: MutableMapping[str, str]) -> list[str]:
    """Remove what is foreign, for this process and those that it starts. Returns the names.

    Clients of our PostgreSQL, which listens on 127.0.0.1 without TLS, are told not to look for certificates: they would
    in the home directory, which may be one that they cannot enter.
    """
    names = [name for name in foreign(environment) if (name, environment[name]) != ("PGSSLMODE", "disable")]
    for name in names:
        del environment[name]
    environment["PGSSLMODE"] = "disable"
    return names


def server_environment(home: Path) -> dict[str, str]:
    """All that PostgreSQL and Kafka get. With UTF-8, or Java would not find files below a folder with an umlaut."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "TZ") if name in os.environ}
    return {"PATH": os.defpath, **kept, "HOME": str(home), "LC_ALL": "C.UTF-8"}
