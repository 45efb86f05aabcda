"""What may keep the platform from starting on this machine: each finding with one line of cause and one of cure."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ftgo_local.brokers.kinds import DEFAULT, KINDS, version
from ftgo_local.errors import PlatformError
from ftgo_local.ports import holder, is_free, variable
from ftgo_local.unprivileged import USER, services_as_root, user_exists

NEEDED_MEMORY_MB = 700
NEEDED_DISK_MB = 500
"""Of PostgreSQL and the services; a broker of ours adds its own (``brokers.kinds``)."""
NEEDED_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """``cause`` and ``cure`` are empty when all is well; ``fact`` is what was measured."""

    name: str
    fact: str
    cause: str = ""
    cure: str = ""

    @property
    def ok(self) -> bool:
        return not self.cause


def examine(
    state_dir: Path,
    ports: Mapping[str, int],
    *,
    running: bool,
    broker: str | None = DEFAULT,
    ignored: Sequence[str] = (),
) -> list[Finding]:
    """All findings, for a start with that broker; None: it runs elsewhere. The ports of a running platform are its own
    and are not examined."""
    available = psutil.virtual_memory().available
    findings = [python(sys.version_info[:2]), memory(available, broker), disk(state_dir, broker), user()]
    findings += [server(name, state_dir, chosen=name == broker) for name in KINDS]
    if ignored:
        findings.append(Finding("shell", f"ignored, as meant for other programs: {', '.join(ignored)}"))
    if running:
        findings.append(Finding("ports", "in use by this platform, which is up"))
    else:
        findings += [port(name, number) for name, number in ports.items()]
    return findings


def python(version: tuple[int, int]) -> Finding:
    fact = f"{version[0]}.{version[1]}"
    if version >= NEEDED_PYTHON:
        return Finding("python", fact)
    needed = ".".join(map(str, NEEDED_PYTHON))
    return Finding("python", fact, f"Python {fact} is too old.", f"Install Python {needed} or newer: make PYTHON=...")


def memory(available_bytes: int, broker: str | None = DEFAULT) -> Finding:
    available = available_bytes // 2**20
    needed = NEEDED_MEMORY_MB + (KINDS[broker].memory_mb if broker else 0)
    fact = f"{available} MB free"
    if available >= needed:
        return Finding("memory", fact)
    cause = f"Only {available} MB of memory are free; the platform uses up to {needed} MB."
    return Finding(
        "memory", fact, cause, "Close other programs, or stop a second copy with `ftgo down --port-offset N`."
    )


def disk(state_dir: Path, broker: str | None = DEFAULT) -> Finding:
    needed = NEEDED_DISK_MB + (KINDS[broker].disk_mb if broker else 0)
    existing = next(p for p in (state_dir, *state_dir.parents) if p.exists())
    free = shutil.disk_usage(existing).free // 2**20
    fact = f"{free} MB free in {existing}"
    if free >= needed:
        return Finding("disk", fact)
    cause = f"Only {free} MB of disk are free in {existing}; {needed} MB are needed."
    return Finding("disk", fact, cause, "Make room, or set FTGO_STATE_DIR to a folder on another disk.")


def server(name: str, state_dir: Path, *, chosen: bool) -> Finding:
    """Which version of a broker would run, or why none can. That is a fault for the one that is to run only."""
    try:
        fact = version(name, state_dir)
    except PlatformError as error:
        if chosen:
            return Finding(name, "absent", error.cause, error.cure)
        return Finding(name, f"absent: {error.cause} {error.cure}")
    return Finding(name, fact)


def user() -> Finding:
    """Who the servers and services run as. To be root is no fault: it is told."""
    if os.geteuid() != 0:
        return Finding("user", "servers and services run as you")
    if not user_exists():
        return Finding("user", f"root; the first start makes the system user {USER}, as whom the servers run")
    return Finding("user", services_as_root() or f"root; servers and services run as {USER}")


def port(name: str, number: int) -> Finding:
    if is_free(number):
        return Finding(f"port {number}", f"free, for {name}")
    cause = f"Port {number} ({name}) is used by {holder(number)}."
    return Finding(f"port {number}", "taken", cause, f"Stop it, or set {variable(name)}, or add --port-offset 100.")
