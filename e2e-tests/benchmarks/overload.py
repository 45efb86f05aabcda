"""What is left of the throughput when twice as much is asked for? ``python e2e-tests/benchmarks/overload.py``

Finds the peak (settled orders/s with as many in flight as help), then offers twice that rate, open loop: a client that
does not wait for anybody. Goodput counts the orders that were accepted and settled, over the whole time, the drain
included. Takes about a minute.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import load
import uvloop
from deployment import Deployment

PORT_OFFSET = 800
IN_FLIGHT = 800
CONNECTIONS = 1500
"""More than the service lets wait: the generator must not be the one that holds back."""


async def _run(system: Deployment, seconds: float) -> dict[str, Any]:
    async with load.Load(system) as peak_load:
        await peak_load.saturate(IN_FLIGHT, 5.0)  # warm
        peak = await peak_load.saturate(IN_FLIGHT, seconds)
    load.CONNECTIONS = CONNECTIONS
    async with load.Load(system) as heavy_load:
        heavy = await heavy_load.at_rate(2 * peak.settled_per_second, seconds)
    return {
        "peak_settled_per_s": round(peak.settled_per_second, 1),
        "offered_per_s": round(2 * peak.settled_per_second, 1),
        "accepted": heavy.accepted,
        "refused": heavy.refused,
        "settled": heavy.settled,
        "drained": peak.drained and heavy.drained,
        "goodput_per_s": round(heavy.settled_per_second, 1),
        "ratio": round(heavy.settled_per_second / peak.settled_per_second, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--port-offset", type=int, default=PORT_OFFSET)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with Deployment(chosen.port_offset) as system:
        report = uvloop.run(_run(system, chosen.seconds))
    for name, value in report.items():
        print(f"{name:<20} {value:>12}")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    sys.exit(0 if report["drained"] and report["ratio"] >= 0.9 else 1)


if __name__ == "__main__":
    main()
