"""`make chaos-selftest`: is the checker any good? Each planted bug has to be found by the invariant meant for it.

    python e2e-tests/chaos/selftest.py --only cursor-by-id,skip-locked

Prints the table bug, invariant, caught, after seconds. Exit code 0: all are caught, and the runs without a bug, under
the same faults, are clean.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from checker import Verdict, check, report
from generator import Workload
from nemesis import Pace
from run import Options, chaos, quieten
from topology import SUBSCRIPTIONS, Subscription

_AUDIT: Subscription = {
    "consumer": "accounting-audit",
    "service": "accounting",
    "topics": ["consumer.events"],
    "types": ["ftgo.consumer.ConsumerRegistered"],
    "deduplicates": True,
}


@dataclass(frozen=True)
class Case:
    """A bug and what provokes it. ``invariant`` None: no bug is planted, and nothing may be found."""

    bug: str
    invariant: str | None
    faults: tuple[str, ...]
    seconds: float = 25.0
    pace: Pace = field(default_factory=Pace)
    rate: float = 10.0
    relay: str = "polling"
    patience: float | None = None
    second_consumer: bool = False


_OFTEN = Pace(kill=2.5, outage=4.0)
_MANY_DUPLICATES = Pace(duplicates=0.4)

CASES = [
    Case("none", None, ("slow", "postgres", "kill", "late-replies", "duplicates"), pace=Pace(kill=4.0, outage=6.0)),
    Case("none", None, ("lost-commands", "poison"), patience=3.0, second_consumer=True),
    Case("cursor-by-id", "I4", ("slow",)),
    Case("delete-before-publish", "I4", ("broker", "kill"), 40.0, _OFTEN),
    Case("ack-before-commit", "I5", ("slow", "postgres", "kill"), 40.0, _OFTEN),
    Case("dedup-apart", "I7", ("slow", "postgres"), 40.0, Pace(outage=3.0)),
    Case("dedup-without-consumer", "I5", (), second_consumer=True),
    Case("skip-locked", "I6", ()),
    Case("skip-failed-row", "I6", ()),
    Case("flush-last-received", "I4", ("broker", "kill"), 40.0, _OFTEN, relay="log-tailing"),
    Case("reply-without-match", "I8", ("late-replies",)),
    Case("timeout-without-lock", "I11", ("slow",), patience=0.3),
    Case("no-version-guard", "I9", ("duplicates",), pace=_MANY_DUPLICATES),
    Case("response-before-commit", "I1", ("postgres",), 40.0, Pace(outage=3.0)),
    Case("rewind-first-partition", "I5", ("slow", "postgres"), 40.0, Pace(outage=3.0), rate=15.0),
    Case("recovery-at-start-only", "I10", ("lost-commands",), patience=2.0),
    Case("forgotten-dead-letter", "I5", ("poison",)),
]


@dataclass
class Result:
    case: Case
    verdict: Verdict | None
    seconds: float

    @property
    def right(self) -> bool:
        if self.verdict is None:
            return False
        found = self.verdict.violations
        return not found if self.case.invariant is None else self.case.invariant in found

    def line(self) -> str:
        found = ", ".join(self.verdict.violations) if self.verdict else "the run failed"
        word = ("clean" if self.case.invariant is None else "caught") if self.right else "MISSED"
        meant = self.case.invariant or "-"
        return f"{self.case.bug:24} {meant:5} {word:7} {self.seconds:5.0f} s   {found}"


def run_case(case: Case, seed: int, offset: int, directory: Path) -> Result:
    environment = {"FTGO_PLANTED_BUG": case.bug}
    subscriptions = list(SUBSCRIPTIONS)
    if case.patience is not None:
        environment["FTGO_TEST_PATIENCE"] = str(case.patience)
    if case.second_consumer:
        environment["FTGO_TEST_SECOND_CONSUMER"] = "1"
        subscriptions.append(_AUDIT)
    options = Options(
        seed,
        case.seconds / 60,
        case.faults,
        case.relay,
        offset,
        Workload(rate=case.rate),
        case.pace,
        environment,
        subscriptions,
        # Long enough for what is right to come to rest; what is broken for good need not be waited for.
        quiet_seconds=60.0 if case.invariant is None else 15.0,
    )
    began = time.monotonic()
    try:
        asyncio.run(chaos(options, directory, lambda text: print(f"    {text}", flush=True)))
        verdict = check(directory)
    except Exception as error:
        print(f"    the run failed: {error!r}")
        return Result(case, None, time.monotonic() - began)
    return Result(case, verdict, time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="bugs, with commas in between")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port-offset", type=int, default=int(os.environ.get("FTGO_CHAOS_PORT_OFFSET", "600")))
    parser.add_argument("--show", action="store_true", help="the checker's whole report of each run")
    given = parser.parse_args()
    only = set(filter(None, given.only.split(",")))
    if unknown := only - {case.bug for case in CASES}:
        parser.error(f"unknown bugs: {', '.join(sorted(unknown))}")
    quieten()
    results = []
    for case in CASES:
        if only and case.bug not in only:
            continue
        directory = Path(tempfile.mkdtemp(prefix=f"ftgo-chaos-{case.bug}-"))
        print(f"{case.bug}: faults {', '.join(case.faults) or 'none'}, {case.seconds:.0f} s", flush=True)
        result = run_case(case, given.seed, given.port_offset, directory)
        results.append(result)
        if result.verdict and (given.show or not result.right):
            print(report(result.verdict))
        if result.right:
            shutil.rmtree(directory)
        else:
            print(f"    evidence: {directory}")
        print(f"  {result.line()}", flush=True)
    print(f"\n{'bug':24} meant caught  after     invariants violated")
    print("\n".join(result.line() for result in results))
    bugs = [r for r in results if r.case.invariant is not None]
    print(f"\n{sum(r.right for r in bugs)} of {len(bugs)} planted bugs are caught by the invariant meant for them.")
    return 0 if all(result.right for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
