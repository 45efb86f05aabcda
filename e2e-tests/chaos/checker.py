"""The judge: files in, verdict out. A pure function; it asks nothing of the system, and can be run again.

    python e2e-tests/chaos/checker.py RUN_DIRECTORY

For each invariant that does not hold it prints the counter-example with the fewest records.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import delivery_invariants as delivery
import effects_invariants as effects
import orders_invariants as orders
from evidence import Evidence, load
from statistics_of_run import Statistics, statistics
from violation import Check, Violation

INVARIANTS: Mapping[str, tuple[str, Check]] = {
    "I1": ("outcome", orders.outcome),
    "I2": ("money", orders.money),
    "I3": ("ticket", orders.ticket),
    "I4": ("no loss", delivery.no_loss),
    "I5": ("no orphan handling", delivery.handled),
    "I6": ("order", delivery.order),
    "I7": ("effects exactly once", effects.effects),
    "I8": ("causality", effects.causality),
    "I9": ("convergence", effects.convergence),
    "I10": ("no orphans", effects.rest),
    "I11": ("semantic lock", orders.semantic_lock),
    "I12": ("HTTP idempotency", orders.idempotency),
    "I13": ("reads", orders.reads),
    "I15": ("dead letters honest", delivery.dead_letters),
}


@dataclass
class Verdict:
    """``violations`` holds the smallest counter-example of each violated invariant, ``counts`` how many there are."""

    violations: dict[str, Violation] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    statistics: Statistics = field(default_factory=Statistics)
    basis: list[str] = field(default_factory=list)


def judge(evidence: Evidence) -> Verdict:
    verdict = Verdict(statistics=statistics(evidence), basis=list(_basis(evidence)))
    for name, (_, check_one) in INVARIANTS.items():
        for violation in check_one(evidence):
            assert violation.invariant == name
            verdict.counts[name] += 1
            smallest = verdict.violations.get(name)
            if smallest is None or len(violation.records) < len(smallest.records):
                verdict.violations[name] = violation
    return verdict


def _basis(evidence: Evidence) -> Iterator[str]:
    """Which invariants are judged, by what; and what was left out of the run."""
    yield f"broker      {evidence.run.get('broker', 'kafka')}: read was {evidence.end.get('witness', 'every topic')}"
    yield f"judged      all {len(INVARIANTS)} invariants: {', '.join(INVARIANTS)}"
    for fault, why in evidence.run.get("left_out", {}).items():
        yield f"left out    the fault {fault}, as {why}"


def check(directory: Path) -> Verdict:
    return judge(load(directory))


def report(verdict: Verdict) -> str:
    lines = ["", *verdict.basis, *verdict.statistics.lines(), ""]
    for name, (title, _) in INVARIANTS.items():
        found = verdict.violations.get(name)
        lines.append(f"{name:4} {title:22} {'VIOLATED, ' + str(verdict.counts[name]) + ' times' if found else 'holds'}")
        if found is not None:
            lines.append(f"       {found.sentence}")
            lines += [f"         {_compact(record)}" for record in found.records]
    lines.append("")
    names = ", ".join(verdict.violations)
    lines.append(f"VERDICT: {'violated: ' + names if names else 'nothing lost, nothing twice'}")
    return "\n".join(lines)


def _compact(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{n}: {v if isinstance(v, str) else json.dumps(v)}" for n, v in record.items())


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    verdict = check(Path(sys.argv[1]))
    print(report(verdict))
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
