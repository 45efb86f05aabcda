"""`make chaos`: runs the system under load and faults, gathers the evidence, and lets the checker judge it.

    python e2e-tests/chaos/run.py --minutes 10 --seed 7 --faults kill,postgres --relay polling --broker nats

Exit code 0: all invariants hold. 1: a violation, and the run directory stays. 2: the run itself failed.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from checker import check, report
from generator import Generator, Workload
from journal import Journal
from nemesis import DISKS, OLD_NAMES, TARGETED, USUAL, Nemesis, Pace
from stand import Stand
from topology import SERVICES, SUBSCRIPTIONS, TOPICS, Subscription
from wires import CLASSES, Wire, wire_at
from witness import DatabaseWitness, lags, read_tables, read_topics, sessions_and_slots, unrest

QUIET_SECONDS = 60.0
"""How long after the faults everything may still be under way."""
_TAIL_SECONDS = 8.0  # customers still come for a while after the last fault
_PROGRESS_SECONDS = 5.0
# Room for the load, and no more: filling a disk takes as much memory.
_DISK_MEGABYTES = {"broker": 200, "postgres": 500}
_DISK_MEGABYTES_A_MINUTE = {"broker": 10, "postgres": 20}
_STILL = 3
"""How often nothing is to be found in a row, where the broker does not tell of all that is under way."""


@dataclass
class Options:
    seed: int
    minutes: float
    faults: tuple[str, ...]
    relay: str = "polling"
    offset: int = 600
    workload: Workload = field(default_factory=Workload)
    pace: Pace = field(default_factory=Pace)
    environment: Mapping[str, str] = field(default_factory=dict)
    subscriptions: list[Subscription] = field(default_factory=lambda: SUBSCRIPTIONS)
    quiet_seconds: float = QUIET_SECONDS
    broker: str = "kafka"
    left_out: dict[str, str] = field(default_factory=dict)


async def chaos(options: Options, directory: Path, say: Any = print) -> None:
    """One run. Leaves its evidence in ``directory``; judges nothing."""
    began = time.monotonic()
    # A name that a restarted process has again: Kafka gives its partitions back at once.
    environment = {"FTGO_RELAY": options.relay, "FTGO_INSTANCE": "chaos", **options.environment}
    _write(directory / "run.json", **_described(options))
    async with AsyncExitStack() as stack:
        small_disks = {
            unit: round(_DISK_MEGABYTES[unit] + _DISK_MEGABYTES_A_MINUTE[unit] * options.minutes)
            for fault, unit in DISKS.items()
            if fault in options.faults
        }
        stand = await stack.enter_async_context(
            Stand(options.offset, directory, environment, broker=options.broker, small_disks=small_disks)
        )
        say(f"up after {time.monotonic() - began:.0f} s: {options.broker}, relay {options.relay}, seed {options.seed}")
        wire = wire_at(options.broker, stand.broker_url)
        await wire.bind()
        say(f"the witness at the broker reads {wire.keeps}")
        history = stack.enter_context(Journal(directory / "history.jsonl"))
        events = stack.enter_context(Journal(directory / "nemesis.jsonl"))
        dsns = {service: stand.superuser_dsn(service) for service in SERVICES}
        witnesses = [DatabaseWitness(service, dsn, directory) for service, dsn in dsns.items()]
        for witness in witnesses:
            await witness.start()
        seconds = options.minutes * 60
        generator = Generator(stand, history, options.workload, options.seed)
        nemesis = Nemesis(stand, wire, events, options.seed, options.faults, options.pace)
        began = time.monotonic()
        load = asyncio.create_task(generator.run(seconds + _TAIL_SECONDS))
        progress = asyncio.create_task(_tell_progress(began, generator, nemesis, say))
        try:
            await nemesis.run(seconds)
            await nemesis.heal()
            await load
        finally:
            progress.cancel()
            load.cancel()
            await asyncio.gather(progress, load, return_exceptions=True)
        say("the faults are over: waiting for rest")
        rest, left = await _rest(wire, dsns, time.monotonic(), options.quiet_seconds)
        say(
            f"at rest {rest:.0f} s after the last customer"
            if not left
            else f"not at rest after {rest:.0f} s: {'; '.join(left)}"
        )
        for witness in witnesses:
            await witness.finish()
        records = await read_topics(wire, TOPICS, directory)
        for service, dsn in dsns.items():
            await read_tables(service, dsn, directory)
        end = await sessions_and_slots(dsns["order"])
        end |= {"rest_seconds": rest, "unrest": left, "lags": await lags(wire)}
        end |= {
            "restarts": stand.restarts(),
            "counts": dict(nemesis.counts),
            "turned_away": options.workload.tally.turned_away,
            "witness": wire.keeps,
        }
        _write(directory / "end.json", **end)
        commits = sum(witness.commits for witness in witnesses)
        say(f"evidence: {commits} commits, {records} records in {directory}")


def _described(options: Options) -> dict[str, Any]:
    described = asdict(options)
    described["workload"].pop("tally")
    described["environment"] = dict(options.environment)
    return described


async def _rest(wire: Wire, dsns: dict[str, str], since: float, patience: float) -> tuple[float, list[str]]:
    """Seconds until everything was at rest, or until patience ended, with what was not."""
    still = 0
    while True:
        left = await unrest(dsns, wire)
        spent = time.monotonic() - since
        still = 0 if left else still + 1
        if still >= (1 if wire.exact else _STILL) or (left and spent > patience):
            return spent, left
        await asyncio.sleep(1)


async def _tell_progress(began: float, generator: Generator, nemesis: Nemesis, say: Any) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        tally, counts = generator.workload.tally, nemesis.counts
        faults = ", ".join(f"{name} {counts[name]}" for name in (*USUAL, *TARGETED) if counts[name])
        say(
            f"{time.monotonic() - began:5.0f} s  orders {tally.orders}, seen settled {tally.settled}, "
            f"unknown answers {tally.unknown}  |  {faults or 'no fault yet'}"
        )


def _write(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content, indent=1))


def _options(arguments: list[str] | None = None) -> tuple[Options, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--broker", choices=CLASSES, default="kafka")
    parser.add_argument("--faults", default=",".join(USUAL), help=f"of {', '.join((*USUAL, *TARGETED))}; or none")
    relays = ("polling", "log-tailing", "both")
    parser.add_argument(
        "--relay", choices=relays, default=os.environ.get("FTGO_RELAY", "polling"), help="both: in turn"
    )
    parser.add_argument("--rate", type=float, default=Workload.rate, help="orders per second")
    parser.add_argument("--port-offset", type=int, default=int(os.environ.get("FTGO_CHAOS_PORT_OFFSET", "600")))
    parser.add_argument("--keep", type=Path, help="run directory; it stays")
    given = parser.parse_args(arguments)
    faults = tuple(OLD_NAMES.get(f, f) for f in given.faults.split(",") if f and f != "none")
    if unknown := set(faults) - {*USUAL, *TARGETED}:
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    left_out = {}
    if os.geteuid() != 0:
        left_out = {fault: "mounting a small disk needs root" for fault in DISKS if fault in faults}
    if given.broker != "kafka" and "broker_disk" in faults:
        left_out["broker_disk"] = "only Kafka is given a disk of its own"
    workload, faults = Workload(rate=given.rate), tuple(f for f in faults if f not in left_out)
    options = Options(given.seed, given.minutes, faults, given.relay, given.port_offset, workload)
    return replace(options, broker=given.broker, left_out=left_out), given.keep


def quieten() -> None:
    """The brokers' clients complain about every connection that this very program has cut."""
    for name in ("aiokafka", "aiormq", "nats", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def main() -> int:
    options, keep = _options()
    quieten()
    if options.relay != "both":
        return run_and_judge(options, keep)
    worst = 0
    for relay in ("polling", "log-tailing"):
        one = replace(options, relay=relay, workload=Workload(rate=options.workload.rate))
        worst = max(worst, run_and_judge(one, keep / relay if keep else None))
    return worst


def run_and_judge(options: Options, keep: Path | None) -> int:
    """One run and its verdict; returns the exit code. The directory stays if it was named, or if something is wrong."""
    directory = keep or Path(tempfile.mkdtemp(prefix="ftgo-chaos-run-"))
    directory.mkdir(parents=True, exist_ok=True)
    again = f"--seed {options.seed} --minutes {options.minutes:g} --faults {','.join(options.faults) or 'none'}"
    print(f"chaos: {again} --relay {options.relay} --broker {options.broker}", flush=True)
    for fault, why in options.left_out.items():
        print(f"left out: {fault}, as {why}", flush=True)
    try:
        asyncio.run(chaos(options, directory, lambda text: print(text, flush=True)))
    except KeyboardInterrupt:
        print(f"broken off; what there is: {directory}")
        return 2
    except Exception:
        traceback.print_exc()
        print(f"the run failed; logs and evidence: {directory}")
        return 2
    verdict = check(directory)
    print(report(verdict), flush=True)
    if verdict.violations:
        checker = Path(__file__).with_name("checker.py")
        print(f"Evidence: {directory}")
        print(f"Check it again: {sys.executable} {checker} {directory}")
        return 1
    if keep is None:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
