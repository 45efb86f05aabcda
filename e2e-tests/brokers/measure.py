"""``make brokers``: measure every broker that starts here, and write ``docs/brokers.json`` and ``docs/brokers.md``.

    make brokers                              the conformance suite and the figures, some 12 minutes
    make brokers ARGS="--only nats,valkey"    of these only; printed, and written with --write
    make brokers ARGS=--long                  order of a hundred thousand messages each, ten minutes a broker
    make brokers ARGS=--system                the whole system on each, two minutes a broker

A broker that cannot run here is told with the reason. Exit code 1 when a test has failed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import figures
import page
import results as store
import uvloop
from conformance import judge
from facts import FACTS
from ftgo_local.brokers.kinds import KINDS, absence
from ftgo_messaging.transports import memory
from place import DIRECT, place
from syncs import syncs_per_message

ROOT = Path(__file__).parents[2]
SYSTEM = ROOT / "e2e-tests/benchmarks/brokers.py"
MEMORY = "memory"
"""The broker of the library's own tests: the suite only, as a control of the suite. It has no figures and no column."""
WHOLE_RUN = 15 * 60.0
FIGURES = 150.0
"""Seconds: the whole run without ``--long`` and ``--system``, and the figures of one broker, at most."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def can_run(name: str) -> str:
    """Why it cannot; empty when it can."""
    if name not in KINDS or name == DIRECT:
        return ""
    with tempfile.TemporaryDirectory(prefix="ftgo-brokers-") as folder:
        missing = absence(name, Path(folder))
    return f"{missing.cause} {missing.cure}" if missing else ""


async def figures_of(name: str) -> dict[str, Any]:
    async with asyncio.timeout(FIGURES), place(name) as found:
        taken = {**await figures.take(found), "traits": {**asdict(found.make().traits), "lanes": found.make().lanes}}
        if found.pid is not None:
            syncs = await figures.in_own_wire(found, lambda wire: syncs_per_message(wire, found.pid))
            taken |= {} if syncs is None else {"syncs_per_message": syncs}
        return taken


def measure(name: str, until: float) -> dict[str, Any]:
    """Suite and figures of one broker, as the results have it."""
    say(f"{name}: the conformance suite")
    left = max(1.0, until - time.monotonic())
    entry = judge(name, within=left)
    outcomes = list(entry["tests"].values())
    say(f"{name}: {outcomes.count('passed')} passed, {outcomes.count('failed')} failed, in {entry['seconds']} s")
    facts = FACTS.get(name)
    if facts is None or facts.emulation:
        return {**entry, "version": "", **({"traits": asdict(memory.TRAITS)} if name == MEMORY else {}), "figures": {}}
    say(f"{name}: figures")
    taken = uvloop.run(figures_of(name))
    say(f"{name}: {json.dumps({key: value for key, value in taken.items() if key != 'traits'})}")
    return {**entry, "version": taken.pop("version"), "traits": taken.pop("traits"), "figures": taken}


def long(name: str) -> dict[str, Any]:
    say(f"{name}: order of 100,000 messages, four times, and the broker away for 30 s")
    entry = judge(name, long=True)
    say(f"{name}: {json.dumps(entry['recorded'])} in {entry['seconds']} s")
    return entry


def system(names: Sequence[str]) -> dict[str, Any]:
    """By a process of its own: it is a benchmark among the others. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, str(SYSTEM), "--only", ",".join(names), "--json", str(report)]
        subprocess.run(command, check=True)
        found: dict[str, Any] = json.loads(report.read_text())
        return found


def chosen(arguments: argparse.Namespace) -> list[str]:
    known = [*FACTS, MEMORY] if not (arguments.long or arguments.system) else list(FACTS)
    asked = [name for name in (arguments.only or "").split(",") if name] or known
    if unknown := set(asked) - {*FACTS, MEMORY}:
        sys.exit(f"no such broker: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    reasons = {name: reason for name in asked if (reason := can_run(name))}
    for name, reason in reasons.items():
        say(f"{name} is absent: {reason}")
    return [name for name in asked if name not in reasons]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,NAME", help="these brokers")
    parser.add_argument("--long", action="store_true", help="the tests of order with 100,000 messages")
    parser.add_argument("--system", action="store_true", help="orders settled by the whole system")
    parser.add_argument("--write", action="store_true", help="write the page even though only some were measured")
    arguments = parser.parse_args()
    names = chosen(arguments)
    began, results = time.monotonic(), store.read()
    run, known = store.new_run(
        " ".join(["make brokers", *([f'ARGS="{" ".join(sys.argv[1:])}"'] if sys.argv[1:] else [])])
    )
    found: dict[str, Any] = {}
    if arguments.system:
        results["system"] = {"run": run, "brokers": system(names)}
    for number, name in enumerate(names, 1):
        if arguments.system:
            break
        say(f"{number} of {len(names)}: {name}")
        if not arguments.long and time.monotonic() > began + WHOLE_RUN:
            say(f"{name} is left out: {WHOLE_RUN / 60:.0f} minutes are over")
            continue
        found[name] = long(name) if arguments.long else measure(name, began + WHOLE_RUN)
        found[name]["run"] = run
    results["runs"][run] = {**known, "seconds": round(time.monotonic() - began)}
    results["long" if arguments.long else "brokers"] |= found
    say(f"all done in {(time.monotonic() - began) / 60:.1f} minutes")
    if arguments.write or not arguments.only:
        store.write(results)
        page.PAGE.write_text(page.written(page.PAGE.read_text(), results))
        say("written: docs/brokers.json, docs/brokers.md")
    else:
        shown = {**results, "brokers": {**found}, "runs": {run: results["runs"][run]}}
        name = "system" if arguments.system else "long" if arguments.long else "factors"
        print(page.TABLES[name]({**shown, "long": found} if arguments.long else shown))
    failed = [test for entry in found.values() for test, outcome in entry["tests"].items() if outcome == "failed"]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
