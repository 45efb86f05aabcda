"""`make mutants`: do the library's fast tests notice when its code is wrong?

    make mutants                                                  # everything: hours
    make mutants ARGS="--module sagas --sample 100 --seed 7"
    make mutants ARGS=--planted

Changes the code in one place at a time (a mutant), in a copy of its own, and runs the module's fast tests. A mutant is
killed when they fail or take far longer than without it; what survives is printed as a diff. Exit code 0: nothing has
survived. Three sources: Cosmic Ray's operators (comparisons, conditions, constants, except clauses, loops), statements
left out, and ``faults.py``: faults that somebody could make in a statement of SQL, where no operator reaches.

A line that ends in ``# no mutant: why`` is left alone: no change of it can matter, and the comment says why.
"""

import argparse
import asyncio
import contextlib
import difflib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from faults import PLANTED
from mutant import LIBRARY, Mutant
from mutations import mutants_of
from tests_of import LEFT_OUT, tests_of

ROOT = Path(__file__).resolve().parents[3]
MODULES = ("outbox", "consumer", "sagas", "transaction/unit_of_work.py", "transaction/transactions.py")
SLOW = 10.0
COPIED = ("conftest.py", "pyproject.toml", "shared/messaging/src", "shared/messaging/tests", "shared/messaging/docs")


@dataclass(frozen=True)
class Limits:
    """How many seconds one test, and all tests of a mutant, may take."""

    test: float = 120.0
    run: float = 900.0


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    killed: bool
    seconds: float
    by: str


def modules(only: str) -> Iterator[Path]:
    for name in MODULES:
        path = ROOT / LIBRARY / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if only in str(file.relative_to(ROOT / LIBRARY)):
                yield file.relative_to(ROOT)


@dataclass(frozen=True)
class Outcome:
    """Of a run of tests. ``why`` they failed: the name of the first that did. ``slowest``: the seconds of one test."""

    failed: bool
    why: str = ""
    slowest: float = 0.0


async def run_tests(copy: Path, tests: Sequence[str], limits: Limits) -> Outcome:
    folder = copy / "tmp"
    folder.mkdir(mode=0o755, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "shared/messaging/src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder),
    }
    options = (
        *("-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", LEFT_OUT, "--tb=no"),
        *(f"--timeout={limits.test:.0f}", "--durations=1", "--durations-min=0"),
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *options, *tests),
        cwd=copy,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), limits.run)
    except TimeoutError:
        return Outcome(True, f"more than {limits.run:.0f} s")
    finally:
        kill(process.pid, folder)
    text = output.decode(errors="replace")
    if process.returncode != 0:
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
        return Outcome(True, failed[1] if failed else f"exit code {process.returncode}")
    slowest = re.search(r"^([\d.]+)s ", text, re.MULTILINE)
    return Outcome(False, slowest=float(slowest[1]) if slowest else 0.0)


def kill(group: int, folder: Path) -> None:
    """What is left of a run of tests: its processes, and its servers, which have their data below ``folder``."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in argument for argument in process.cmdline()):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


async def judge(mutant: Mutant, copy: Path, limits: Limits) -> Verdict:
    file = copy / mutant.module
    original = file.read_text()
    began = time.monotonic()
    try:
        file.write_text(mutant.code)
        tests = mutant.tests or tests_of(mutant.module.relative_to(LIBRARY))
        outcome = await run_tests(copy, tests, limits)
    finally:
        file.write_text(original)
    return Verdict(mutant, outcome.failed, time.monotonic() - began, outcome.why)


def make_copy() -> Path:
    copy = Path(tempfile.mkdtemp(prefix="ftgo-mutants-"))
    for name in COPIED:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    copy.chmod(0o755)
    return copy


def diff(mutant: Mutant) -> str:
    before, after = (ROOT / mutant.module).read_text().splitlines(), mutant.code.splitlines()
    return "\n".join(difflib.unified_diff(before, after, str(mutant.module), mutant.name, lineterm="", n=1))


async def limits_without_a_mutant(mutants: Sequence[Mutant]) -> Limits | None:
    """Some times what the tests take on this machine as it is now. None: they fail."""
    tests = {test for mutant in mutants for test in mutant.tests or tests_of(mutant.module.relative_to(LIBRARY))}
    copy = make_copy()
    began = time.monotonic()
    outcome = await run_tests(copy, sorted(tests), Limits())
    took = time.monotonic() - began
    shutil.rmtree(copy, ignore_errors=True)
    if outcome.failed:
        print(f"the tests fail without a mutant: {outcome.why}")
        return None
    limits = Limits(max(20.0, 4 * outcome.slowest), max(45.0, 3 * took))
    taken = f"without a mutant {took:.0f} s, at most {outcome.slowest:.1f} for a test"
    print(f"{taken}; limits: {limits.run:.0f} and {limits.test:.0f} s", flush=True)
    return limits


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", default="", help="only modules whose path has this in it")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants by operators, drawn by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--planted", action="store_true", help="only the faults of faults.py")
    options = parser.parse_args()

    files = [] if options.planted else list(modules(options.module))
    mutants = [m for file in files for m in mutants_of(file, ROOT)]
    total = len(mutants)
    if options.sample:
        mutants = random.Random(options.seed).sample(mutants, min(options.sample, total))
    mutants += [fault.mutant(ROOT) for fault in PLANTED if options.module in fault.module]
    limits = await limits_without_a_mutant(mutants)
    if limits is None:
        return 2
    queue = list(reversed(mutants))
    verdicts: list[Verdict] = []

    async def work() -> None:
        copy = make_copy()
        try:
            while queue:
                verdict = await judge(queue.pop(), copy, limits)
                verdicts.append(verdict)
                if not verdict.killed:
                    print(f"SURVIVED {diff(verdict.mutant)}\n", flush=True)
                if len(verdicts) % 20 == 0:
                    alive = sum(not v.killed for v in verdicts)
                    print(f"{len(verdicts)} of {len(mutants)}, {alive} alive", flush=True)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    await asyncio.gather(*(work() for _ in range(options.workers)))
    alive = [v for v in verdicts if not v.killed]
    slow = [v for v in verdicts if v.killed and v.seconds > SLOW]
    for verdict in slow:
        print(f"SLOW {verdict.mutant.module}: {verdict.mutant.name}: {verdict.seconds:.0f} s, {verdict.by}")
    planted = sum(bool(v.mutant.tests) for v in verdicts)
    print(
        f"{len(verdicts)} mutants ({len(verdicts) - planted} of {total} by operators, {planted} planted): "
        f"{len(verdicts) - len(alive)} killed, {len(alive)} survived"
    )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
