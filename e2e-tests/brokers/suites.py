"""What the transports promise, and the journeys, on each broker that starts here: ``suites.py [BROKER ...] [-- ...]``

A broker that cannot run on this machine is told with the reason, and is a failure only where it was asked for by name.
Exit code 0 when all that ran has passed. ``make test-brokers`` calls it; what follows ``--`` goes to pytest.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from ftgo_local.brokers.kinds import KINDS, absence

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "shared/messaging/tests/integration"
JOURNEYS = ROOT / "e2e-tests/journeys"
MEMORY = "memory"
"""No broker, and no journeys: the transport of the library's own tests."""

PASSED, FAILED = "passed", "failed"


@dataclass
class Result:
    """Of one run of pytest. ``code`` is its exit code, ``reasons`` are those of what it skipped."""

    code: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    reasons: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    """Of each test by its name: passed, failed, or why it was skipped."""

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        broken = f" (pytest ended with {self.code})" if self.code not in {0, 1} else ""
        return f"{self.passed} passed, {self.failed} failed{skipped} in {self.seconds:.0f} s{broken}"


def pytest(
    broker: str, files: Iterable[Path], more: Sequence[str], settings: Mapping[str, str] | None = None
) -> Result:
    """Its output is shown as it comes. ``settings`` are added to the environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-P", "-m", "pytest", "-q", "--timeout", "300", f"--junitxml={report}", *more]
        environment = {**os.environ, "FTGO_BROKER": broker, **(settings or {})}
        began = time.monotonic()
        done = subprocess.run([*command, *map(str, files)], cwd=ROOT, env=environment, check=False)
        return read(report, done.returncode, time.monotonic() - began)


def read(report: Path, code: int, seconds: float) -> Result:
    result = Result(code, seconds=seconds)
    if not report.exists():
        return result
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own file
        skipped = case.find("skipped")
        if skipped is not None:
            result.skipped += 1
            result.reasons.add(skipped.get("message", ""))
            outcome = skipped.get("message", "")
        elif case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
            outcome = FAILED
        else:
            result.passed += 1
            outcome = PASSED
        result.outcomes[case.get("name", "")] = outcome
    return result


def conformance(broker: str) -> list[Path]:
    """The files in which this broker's transport is put to the test."""
    return [file for end in ("", "_transport") if (file := CONFORMANCE / f"test_{broker}{end}.py").exists()]


def main(arguments: Sequence[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    asked, more = arguments[:split], arguments[split + 1 :]
    if unknown := set(asked) - {MEMORY, *KINDS}:
        sys.exit(f"no such broker: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    lines: list[str] = []
    well = True
    for broker in asked or [MEMORY, *KINDS]:
        title = KINDS[broker].title if broker in KINDS else broker
        with tempfile.TemporaryDirectory(prefix="ftgo-brokers-") as folder:
            missing = absence(broker, Path(folder)) if broker in KINDS else None
        if missing is not None:
            lines.append(f"{title:<10} absent: {missing.cause} {missing.cure}")
            well = well and not asked
            continue
        for what, files in (("conformance", conformance(broker)), ("journeys", [JOURNEYS])):
            if what == "journeys" and broker == MEMORY:
                continue
            if not files:
                lines.append(f"{title:<10} {what:<11} there is no test of it yet")
                well = False
                continue
            print(f"\n== {title}: {what}", flush=True)
            result = pytest(broker, files, more)
            well = well and result.code == 0
            lines += [f"{title:<10} {what:<11} {result}", *(f"{'':<22} {reason}" for reason in sorted(result.reasons))]
    print("\n" + "\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
