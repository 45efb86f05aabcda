"""The whole system on each broker, one after the other: orders settled per second, and the time from POST to settled.

Each gets a private copy with empty data, the same load, and two minutes. The load begins with a few seconds that do not
count. ``make brokers ARGS=--system`` writes the result into docs/brokers.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from bench import IN_FLIGHT, PORT_OFFSET, WARM_SECONDS, milliseconds
from deployment import Deployment
from ftgo_local.brokers.kinds import KINDS
from load import Load
from settlements import of_database

RATE = 20.0
KAFKA = "kafka"
RATE_TARGET, TIME_TARGET = 0.5, 1.5
"""Of Kafka's: orders settled per second at least, p50 from POST to settled at most."""


async def under_load(system: Deployment, seconds: float) -> dict[str, Any]:
    async with Load(system, of_database) as load:
        await load.saturate(200, WARM_SECONDS)
        lone = await load.at_rate(RATE, seconds)
        full = await load.saturate(IN_FLIGHT, seconds)
    return {
        "settled_ms": milliseconds(lone.settlements),
        "settled_per_s": round(full.settled_per_second, 1) if full.drained else None,
        "refused": lone.refused + full.refused,
        "rejected": lone.rejected + full.rejected,
    }


def measure(broker: str, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    with Deployment(PORT_OFFSET, broker=broker) as system:
        up = time.perf_counter() - began
        return {"up_s": round(up, 1), **uvloop.run(under_load(system, seconds))}


def compare(found: dict[str, Any]) -> None:
    """Add to each what its figures are against Kafka's, in the same run, and whether that is what is aimed at."""
    kafka = found.get(KAFKA)
    for name, each in found.items():
        rate, p50 = each["settled_per_s"], each["settled_ms"].get("p50")
        if kafka and rate and kafka["settled_per_s"] and p50:
            share, longer = rate / kafka["settled_per_s"], p50 / kafka["settled_ms"]["p50"]
            most = 1.0 if name == "direct" else TIME_TARGET
            each["of_kafka"] = {
                "rate": {"ratio": share, "well": share >= RATE_TARGET},
                "p50": {"ratio": longer, "well": longer <= most},
            }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """One for each."""
    for name, each in found.items():
        rate, p50 = each["settled_per_s"], each["settled_ms"].get("p50")
        line = f"{name:10} {'backlog' if rate is None else f'{rate:7.0f}/s'}   p50 {p50} ms   up in {each['up_s']} s"
        if name != KAFKA and (against := each.get("of_kafka")):
            line += f"   {against['rate']['ratio']:.2f} of Kafka's rate, {against['p50']['ratio']:.2f} of its time"
            line += "" if against["rate"]["well"] and against["p50"]["well"] else "   MISSES THE TARGET"
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {','.join(KINDS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=15, help="length of each phase (default 15, at most 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    chosen = parser.parse_args()
    if not 1 <= chosen.seconds <= 300:
        parser.error("--seconds is 1 to 300")
    found: dict[str, Any] = {}
    for name in (chosen.only or ",".join(KINDS)).split(","):
        if name not in KINDS:
            print(f"{name} is left out: `ftgo up --broker {name}` is not there", flush=True)
            continue
        found[name] = measure(name, chosen.seconds)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    compare(found)
    print("\n" + "\n".join(lines(found)))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(each["settled_per_s"] for each in found.values()) else 1)


if __name__ == "__main__":
    main()
