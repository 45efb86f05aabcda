"""The results as a file: ``docs/brokers.json``. The tables of ``docs/brokers.md`` are made of it, and of nothing else.

{"runs": {RUN: {date, command, machine, seconds}},
 "brokers": {NAME: {run, version, traits, tests, recorded, figures}},
 "long": {NAME: {run, recorded, seconds, tests}},
 "system": {"run": RUN, "brokers": {NAME: {settled_per_s, ...}}}}
"""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "docs/brokers.json"


def read(file: Path = FILE) -> dict[str, Any]:
    empty: dict[str, Any] = {"runs": {}, "brokers": {}, "long": {}, "system": {}}
    return empty | (json.loads(file.read_text()) if file.exists() else {})


def write(results: Mapping[str, Any], file: Path = FILE) -> None:
    """Runs of which nothing is left are left out."""
    entries = [*results["brokers"].values(), *results["long"].values(), results["system"]]
    used = {entry["run"] for entry in entries if "run" in entry}
    kept = {**results, "runs": {name: run for name, run in results["runs"].items() if name in used}}
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def new_run(command: str) -> tuple[str, dict[str, Any]]:
    """Its name, and what is known of it before it begins."""
    now = datetime.now(UTC)
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first("/proc/cpuinfo", "model name"),
        "memory_gb": round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 1e6, 1),
        "system": _first("/etc/os-release", "PRETTY_NAME", "=").strip('"') + f", Linux {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
    return f"{now:%Y-%m-%dT%H:%MZ}", {"date": f"{now:%Y-%m-%d %H:%M} UTC", "command": command, "machine": machine}


def _first(file: str, name: str, between: str = ":") -> str:
    try:
        lines = [line.partition(between) for line in Path(file).read_text().splitlines()]
    except OSError:
        return "?"
    return next((value.strip() for key, _, value in lines if key.strip() == name), "?")
