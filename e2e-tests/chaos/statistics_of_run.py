"""The figures of a run: how much happened, how soon it went on, and what zero violations are worth."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from evidence import Evidence

_BREAKING = ("kill", "pause", "postgres", "broker", "network", "broker_disk", "postgres_disk")
_SETTLED = {"APPROVED", "REJECTED", "CANCELLED"}


@dataclass
class Statistics:
    """Times in seconds. ``recoveries``: from each heal to the first order that was settled after it, while other
    faults go on; ``last_recovery``: the same after everything was back. ``rest_seconds``: from the last customer's
    leaving until nothing was under way."""

    accepted: int = 0
    orders: int = 0
    commits: int = 0
    records: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    last_recovery: float | None = None
    longest_gap: float = 0.0
    rest_seconds: float | None = None

    @property
    def bound(self) -> float:
        """With no violation in N independent faults, the probability of one per fault is below 3/N, with 95 %."""
        return min(1.0, 3 / max(1, sum(self.faults[f] for f in _BREAKING)))

    def lines(self) -> list[str]:
        n = sum(self.faults[f] for f in _BREAKING)
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        lines = [
            f"orders      {self.orders} exist, {self.accepted} were accepted by an answer",
            f"evidence    {self.commits} commits, {self.records} records",
            f"faults      {faults or 'none'}",
        ]
        if n:
            lines.append(f"bound       no violation in {n} faults means less than {self.bound:.2%} each, with 95 %")
        if self.recoveries:
            r = sorted(self.recoveries)
            lines.append(
                f"recovery    first settled order after a heal: median {r[len(r) // 2]:.1f} s, "
                f"95 % {r[int(len(r) * 0.95)]:.1f} s, worst {r[-1]:.1f} s ({len(r)} heals)"
            )
        if self.last_recovery is not None:
            lines.append(f"            after all was back: {self.last_recovery:.1f} s")
        lines.append(f"longest gap {self.longest_gap:.1f} s without a settled order")
        if self.rest_seconds is not None:
            lines.append(f"at rest     {self.rest_seconds:.0f} s after the last customer")
        return lines


def statistics(evidence: Evidence) -> Statistics:
    created = [line for line in evidence.history if line["what"] == "create"]
    promised = {line["answer"]["orderId"] for line in created if line["kind"] == "ok"}
    result = Statistics(
        accepted=len(promised),
        orders=len(evidence.rows("order", "orders")),
        commits=sum(len(commits) for commits in evidence.commits.values()),
        records=len(evidence.records),
        faults=Counter(e["fault"] for e in evidence.nemesis if e["phase"] == "begin"),
        rest_seconds=evidence.end.get("rest_seconds"),
    )
    settled = sorted(
        commit.at for commit, row in evidence.written("order", "order_history", "insert") if row["state"] in _SETTLED
    )
    for event in evidence.nemesis:
        after = bisect_left(settled, event["wall"])
        if event["phase"] != "heal" or after == len(settled):
            continue
        if event["fault"] in _BREAKING:
            result.recoveries.append(settled[after] - event["wall"])
        elif event["fault"] == "all":
            result.last_recovery = settled[after] - event["wall"]
    if created and settled:
        until = max(line["wall"] for line in created)
        times = [t for t in settled if t <= until]
        result.longest_gap = max((b - a for a, b in pairwise(times)), default=0.0)
    return result
