"""`make bench-relay`: what a relay moves, how late, and what it costs the writers, for both relays.

A private PostgreSQL and Kafka, on loopback, gone afterwards. Ratios are within one run. Takes about three minutes, with
ten million old rows (`--old-rows 10000000`) five more.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from aiokafka import AIOKafkaProducer
from ftgo_local.platform import Platform
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.outbox.wake_up import Listener, Notifier
from ftgo_messaging.outbox.writer import shard_of
from relay_scene import KINDS, Clock, Scene, make, ready, scene_on
from sqlalchemy.ext.asyncio import create_async_engine

BATCH = 500
WRITERS = 32


# -- throughput ------------------------------------------------------------------------------------------------------


async def _bare(scene: Scene) -> float:
    """Messages/s of the client library alone: the same messages and batches, n sends and one gather."""
    messages = [(x.channel, x.body, x.key.encode(), [(n, v.encode()) for n, v in x.headers.items()])
                for x in await scene.messages()]  # fmt: skip
    producer = AIOKafkaProducer(
        bootstrap_servers=scene.platform.kafka.bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=256 * 1024,
    )
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(c, v, key=k, headers=h) for c, v, k, h in messages[:BATCH]])
        began = time.perf_counter()
        for i in range(0, len(messages), BATCH):
            futures = [await producer.send(c, v, key=k, headers=h) for c, v, k, h in messages[i : i + BATCH]]
            await asyncio.gather(*futures)
        return len(messages) / (time.perf_counter() - began)
    finally:
        await producer.stop()


async def _relayed(scene: Scene, kind: str, count: int) -> float:
    """Messages/s from a full outbox to Kafka's acknowledgement and the delete."""
    publisher = scene.publisher()
    relay = await ready(make(kind, scene.engine, publisher, WakeUp(), batch=BATCH))
    try:
        await scene.fill(BATCH)
        while await relay.run_once():
            pass
        await scene.fill(count)
        began = time.perf_counter()
        moved = 0
        while moved < count:
            moved += await relay.run_once()
        return moved / (time.perf_counter() - began)
    finally:
        await relay.release()
        await publisher.close()


async def _throughput(scene: Scene, count: int, rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"bare producer": [], **{kind: [] for kind in KINDS}}
    for _ in range(rounds):
        await scene.fill(count)
        rates["bare producer"].append(await _bare(scene))
        await scene.sql("TRUNCATE outbox")
        for kind in KINDS:
            rates[kind].append(await _relayed(scene, kind, count))
    found: dict[str, Any] = {name: round(statistics.median(x)) for name, x in rates.items()}
    for kind in KINDS:
        found[f"{kind} / bare"] = round(found[kind] / found["bare producer"], 2)
    return found


# -- latency ---------------------------------------------------------------------------------------------------------


_INSERT = (
    "INSERT INTO outbox (message_id, channel, key, shard, headers, body) VALUES ($1, 'bench.events', $2, $3, $4, $5)"
)


async def _latency(scene: Scene, kind: str, notify: bool, rate: int, seconds: float) -> dict[str, float]:
    """Milliseconds from the commit's return to Kafka's acknowledgement, at a steady rate."""
    publisher, wake_up = scene.publisher(), WakeUp()
    clock = Clock(publisher)
    relay = await ready(make(kind, scene.engine, clock, wake_up, batch=BATCH))
    notifier, listener = Notifier(scene.engine), Listener(scene.engine, wake_up)
    tasks = [asyncio.create_task(relay.run())]
    if notify:
        tasks += [asyncio.create_task(notifier.run()), asyncio.create_task(listener.run())]
    committed: dict[str, float] = {}
    connection = await asyncpg.connect(scene.dsn)
    try:
        began = time.perf_counter()
        for i in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + i / rate - time.perf_counter()))
            message_id, key = new_id(), f"order-{i % 50:030}"
            headers = json.dumps({"id": message_id, "type": "ftgo.Tick", "subject": key})
            await connection.execute(_INSERT, message_id, key, shard_of(key), headers, b"x" * 300)
            committed[message_id] = time.perf_counter()
            if kind == "polling":
                (notifier if notify else wake_up).ring()
        async with asyncio.timeout(30):
            while len(clock.acknowledged) < len(committed):  # noqa: ASYNC110 - a bench may ask
                await asyncio.sleep(0.01)
    finally:
        relay.stop()
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()
        await publisher.close()
    late = sorted(max(0.0, clock.acknowledged[x] - at) * 1000 for x, at in list(committed.items())[rate:])
    return {"p50": round(late[len(late) // 2], 2), "p99": round(late[int(len(late) * 0.99)], 2)}


# -- writers ---------------------------------------------------------------------------------------------------------


async def _writers(scene: Scene, seconds: float, notifier: Notifier | None) -> float:
    """Transactions/s of 32 writers, each an order and its message."""
    counter = iter(range(1 << 40))
    base = int(time.time() * 1000) << 20
    done = 0
    ends = time.perf_counter() + seconds

    async def writer() -> None:
        nonlocal done
        connection = await asyncpg.connect(scene.dsn)
        try:
            while time.perf_counter() < ends:
                number = base + next(counter)
                key = f"order-{number:030}"
                headers = '{"id": "x", "type": "ftgo.Tick", "subject": "' + key + '"}'
                async with connection.transaction():
                    await connection.execute("INSERT INTO orders VALUES ($1, 'APPROVED')", number)
                    await connection.execute(_INSERT, new_id(), key, shard_of(key), headers, b"x" * 300)
                done += 1
                if notifier is not None:
                    notifier.ring()
        finally:
            await connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    return done / (time.perf_counter() - began)


async def _relay_process(scene: Scene, kind: str, listen: bool) -> asyncio.subprocess.Process:
    arguments = ["--relay", kind, "--dsn", scene.dsn, "--bootstrap", scene.platform.kafka.bootstrap]
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, *(["--listen"] if listen else []), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        await process.stdout.readline()
    return process


async def _run_relay(kind: str, dsn: str, bootstrap: str, listen: bool) -> None:
    """The relay as a process of its own: says when it is ready, ends with its parent or after ten minutes."""
    from ftgo_messaging.transports.kafka.publisher import KafkaPublisher

    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), pool_size=4)
    wake_up = WakeUp()
    relay = await ready(make(kind, engine, KafkaPublisher(bootstrap, "relay-bench"), wake_up, batch=BATCH))
    listener = Listener(engine, wake_up)
    tasks = [asyncio.create_task(relay.run())] + ([asyncio.create_task(listener.run())] if listen else [])
    while listen and not listener.listening:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    parent = os.getppid()
    async with asyncio.timeout(600):
        while os.getppid() == parent:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()


async def _beside_writers(scene: Scene, seconds: float, rounds: int) -> dict[str, Any]:
    cases: dict[str, tuple[str | None, bool]] = {
        "no relay": (None, False),
        "polling": ("polling", False),
        "polling, woken": ("polling", True),
        "log-tailing": ("log-tailing", False),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (kind, wake) in cases.items():
            process = await _relay_process(scene, kind, wake) if kind else None
            notifier = Notifier(scene.engine)
            task = asyncio.create_task(notifier.run())
            rates[name].append(await _writers(scene, seconds, notifier if wake else None))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if process is not None:
                process.kill()
                await process.wait()
            await scene.sql("UPDATE relay_lease SET expires_at = now()")
            await scene.sql("TRUNCATE outbox")
    found: dict[str, Any] = {name: round(statistics.median(x)) for name, x in rates.items()}
    for name in ("polling", "polling, woken", "log-tailing"):
        found[f"{name} / no relay"] = round(found[name] / found["no relay"], 2)
    found["woken / not woken"] = round(found["polling, woken"] / found["polling"], 2)
    return found


# -- old rows --------------------------------------------------------------------------------------------------------


async def _with_history(scene: Scene, count: int, old_rows: int, churn: int) -> dict[str, Any]:
    """The relay before and after: rows that others have piled up, and a long churn of its own table."""
    found: dict[str, Any] = {}

    async def measure(name: str) -> None:
        for kind in KINDS:
            found[f"{kind}, {name}"] = round(await _relayed(scene, kind, count))

    await measure("empty")
    await scene.sql(
        "INSERT INTO processed_messages (consumer, message_id) "
        "SELECT 'bench', uuidv7() FROM generate_series(1, $1::bigint)",
        old_rows,
    )
    await measure(f"{old_rows:,} old rows")
    await _relayed(scene, "polling", churn)
    await measure(f"after a churn of {churn:,}")
    for kind in KINDS:
        for name in (f"{old_rows:,} old rows", f"after a churn of {churn:,}"):
            found[f"{kind}, {name} / empty"] = round(found[f"{kind}, {name}"] / found[f"{kind}, empty"], 2)
    return found


# -- the run ---------------------------------------------------------------------------------------------------------


async def _run(path: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load_before": round(os.getloadavg()[0], 2)}
    platform = Platform(path)
    try:
        await platform.start_postgres()
        await platform.start_kafka()
        async with scene_on(platform) as scene:
            sections = {
                "messages/s": lambda: _throughput(scene, chosen.messages, chosen.rounds),
                "commit to acknowledgement, ms, at 100/s": lambda: _latencies(scene, chosen.seconds),
                f"transactions/s of {WRITERS} writers": lambda: _beside_writers(scene, chosen.seconds, chosen.rounds),
            }
            if chosen.old_rows:
                sections["messages/s with history"] = lambda: _with_history(
                    scene, chosen.messages, chosen.old_rows, chosen.messages * 10
                )
            for title, measure in sections.items():
                report[title] = found = await measure()
                print(f"\n{title}")
                for name, value in found.items():
                    parts = value if isinstance(value, dict) else {"": value}
                    print(f"  {name:48}{'   '.join(f'{k} {v}'.strip() for k, v in parts.items())}")
                sys.stdout.flush()
    finally:
        platform.stop()
    return report


async def _latencies(scene: Scene, seconds: float) -> dict[str, Any]:
    return {
        "polling, woken in the process": await _latency(scene, "polling", False, 100, seconds),
        "polling, woken by NOTIFY": await _latency(scene, "polling", True, 100, seconds),
        "log-tailing": await _latency(scene, "log-tailing", False, 100, seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=30_000, help="of each throughput run (default 30000)")
    parser.add_argument("--seconds", type=float, default=8, help="of each other run (default 8, at most 60)")
    parser.add_argument("--rounds", type=int, default=3, help="alternating; medians are reported (default 3)")
    parser.add_argument("--old-rows", type=int, default=0, help="pile these up first, and measure again (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    for name in ("--relay", "--dsn", "--bootstrap"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--listen", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.relay:
        uvloop.run(_run_relay(chosen.relay, chosen.dsn, chosen.bootstrap, chosen.listen))
        return
    if not (1000 <= chosen.messages <= 1_000_000 and 2 <= chosen.seconds <= 60 and 1 <= chosen.rounds <= 9):
        parser.error("--messages is 1000 to 1000000, --seconds 2 to 60 (the first is to warm up), --rounds 1 to 9")
    path = Path(tempfile.mkdtemp(prefix="ftgo-bench-"))
    try:
        report = uvloop.run(_run(path, chosen))
    finally:
        shutil.rmtree(path, ignore_errors=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
