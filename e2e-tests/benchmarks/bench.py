"""`make bench`: how many orders this machine settles, how fast, and what one order costs.

Starts a private copy of the system, loads it over HTTP in phases, and prints a report; every phase ends with a drained
system, and a rate counts only then. Takes about three minutes.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import meter
import uvloop
from deployment import Deployment
from load import Load, Run

PORT_OFFSET = 700
IN_FLIGHT = 800
COUNTED_ORDERS = 2000
WARM_SECONDS = 5.0
"""Until statements are prepared, connections are open and the broker's compiler has seen the work."""


def milliseconds(latencies: Sequence[float]) -> dict[str, float]:
    if len(latencies) < 2:
        return {}
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50": round(cuts[49] * 1000, 1), "p99": round(cuts[98] * 1000, 1)}


async def _phase(system: Deployment, load: Awaitable[Run]) -> dict[str, Any]:
    """One phase as the report has it. Without a drained backlog there is no rate to speak of."""
    with meter.cpu(system) as cpu:
        run = await load
    orders, duration = max(1, run.settled), run.ended - run.began
    return {
        "accepted": run.accepted,
        "refused": run.refused,
        "approved": run.approved,
        "rejected": run.rejected,
        "drained": run.drained,
        "accepted_per_s": round(run.accepted_per_second, 1),
        "settled_per_s": round(run.settled_per_second, 1) if run.drained else None,
        "post_ms": milliseconds(run.posts),
        "settled_ms": milliseconds(run.settlements),
        "cpu_ms_per_order": {
            "system": round(cpu.system * 1000 / orders, 2),
            "python": round(cpu.python * 1000 / orders, 2),
            **{name: round(seconds * 1000 / orders, 3) for name, seconds in cpu.seconds.items()},
        },
        "cores_busy": {name: round(seconds / duration, 2) for name, seconds in cpu.seconds.items()},
    }


async def _counts(system: Deployment, load: Load, burst: int) -> dict[str, Any]:
    async with meter.kafka(system) as kafka, meter.sql(system) as sql:
        run = await load.burst(burst)
    orders = run.settled

    def each(counter: dict[str, int]) -> dict[str, float]:
        return {name: round(number / orders, 4) for name, number in sorted(counter.items())}

    return {
        "orders": orders,
        "kafka_messages": each(kafka.messages) | {"all": round(kafka.messages.total() / orders, 4)},
        "offset_commits": each(kafka.offset_commits) | {"all": round(kafka.offset_commits.total() / orders, 4)},
        "sql_statements": each(sql.statements) | {"all": round(sql.statements.total() / orders, 4)},
        "commits": each(sql.commits) | {"all": round(sql.commits.total() / orders, 4)},
    }


async def _batched(system: Deployment, seconds: float, rate: float) -> dict[str, Any]:
    async with Load(system) as load:
        await load.saturate(200, WARM_SECONDS)
        phases = {f"{rate:g} orders/s": await _phase(system, load.at_rate(rate, seconds))}
        phases["saturated"] = await _phase(system, load.saturate(IN_FLIGHT, seconds))
        fifth = max(1.0, (phases["saturated"]["settled_per_s"] or 0) / 5)
        phases["20 % of that"] = await _phase(system, load.at_rate(fifth, seconds))
        return {"phases": phases, "counts": await _counts(system, load, COUNTED_ORDERS)}


async def _one_by_one(system: Deployment, seconds: float) -> dict[str, Any]:
    async with Load(system) as load:
        await load.saturate(50, WARM_SECONDS)
        # Fewer in flight: they settle at a twentieth of the rate, and have to drain all the same.
        phases = {"one message each": await _phase(system, load.saturate(IN_FLIGHT // 4, seconds))}
        return {"phases": phases, "counts": await _counts(system, load, COUNTED_ORDERS // 10)}


def describe_machine() -> dict[str, Any]:
    model = next((x.split(": ")[1] for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "?")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
    }


def _print_head(machine: dict[str, Any]) -> None:
    print(f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}; the generator, the services,")
    print(f"PostgreSQL and Kafka on them together; load average before: {machine['load_average_before']:.2f}\n")
    print(f"{'':24}{'accepted':>9}{'settled':>9}   {'CPU-ms per order':^33}   {'POST, ms':^13}{'to settled, ms':>15}")
    head = f"{'':24}{'/s':>9}{'/s':>9}   {'system':>8}{'Python':>8}{'Postgres':>9}{'Kafka':>8}"
    print(f"{head}   {'p50':>6}{'p99':>7}{'p50':>8}{'p99':>7}   cores: generator, others")


def _print_phase(name: str, phase: dict[str, Any]) -> None:
    cpu, busy = phase["cpu_ms_per_order"], phase["cores_busy"]
    settled = "backlog" if phase["settled_per_s"] is None else f"{phase['settled_per_s']:.0f}"
    times = [*phase["post_ms"].values(), *phase["settled_ms"].values()] or [0.0] * 4
    print(
        f"{name:24}{phase['accepted_per_s']:9.0f}{settled:>9}   {cpu['system']:8.2f}{cpu['python']:8.2f}"
        f"{cpu['postgres']:9.2f}{cpu['kafka']:8.2f}   {times[0]:6.0f}{times[1]:7.0f}{times[2]:8.0f}{times[3]:7.0f}"
        f"   {busy['generator']:.2f}, {busy['others']:.2f}",
        flush=True,
    )
    if phase["refused"] or phase["rejected"]:
        print(f"{'':24}{phase['refused']} requests refused, {phase['rejected']} orders rejected")


def _print_counts(counts: dict[str, Any]) -> None:
    print(f"\nper order, in a burst of {counts['orders']}:")
    for name, count in counts.items():
        if isinstance(count, dict):
            split = ", ".join(f"{key} {number:g}" for key, number in count.items() if key != "all")
            print(f"  {name.replace('_', ' '):16}{count['all']:8.3f}   ({split})")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=15, help="length of each phase (default 15, at most 300)")
    parser.add_argument("--rate", type=float, default=20, help="orders/s of the latency phase (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    parser.add_argument("--skip-one-by-one", action="store_true", help="without the comparison with FTGO_BATCH=1")
    chosen = parser.parse_args()
    if not 1 <= chosen.seconds <= 300 or not 1 <= chosen.rate <= 2000:
        parser.error("--seconds is 1 to 300, --rate 1 to 2000")
    report: dict[str, Any] = {"machine": describe_machine()}
    _print_head(report["machine"])
    with Deployment(PORT_OFFSET) as system:
        report["batched"] = batched = uvloop.run(_batched(system, chosen.seconds, chosen.rate))
    for name, phase in batched["phases"].items():
        _print_phase(name, phase)
    _print_counts(batched["counts"])
    if not chosen.skip_one_by_one:
        with Deployment(PORT_OFFSET, {"FTGO_BATCH": "1"}) as system:
            report["one by one"] = one_by_one = uvloop.run(_one_by_one(system, min(10.0, chosen.seconds)))
        one = one_by_one["phases"]["one message each"]
        _print_phase("one message each", one)
        _print_counts(one_by_one["counts"])
        together = batched["phases"]["saturated"]["settled_per_s"]
        if together and one["settled_per_s"]:
            report["ratio"] = round(together / one["settled_per_s"], 1)
            print(f"settled/s in batches: {report['ratio']} times that of one message per transaction")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    sys.exit(0 if batched["phases"]["saturated"]["drained"] else 1)


if __name__ == "__main__":
    main()
