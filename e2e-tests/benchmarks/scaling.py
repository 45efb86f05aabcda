"""`make bench-scaling`: how many messages a second 1, 2 and 4 workers of one service handle.

The workers are up and idle when a backlog arrives on their channel, twelve partitions of it; the rate counts from a
tenth to nine tenths of it, by the offsets that the group has committed. Two services:

kitchen   the real one: its api, its relay, and N times its worker. It is bound by CPU: of the workers, and of the
          PostgreSQL, Kafka and relay on the same machine, so on few cores it cannot grow with the workers.
slow      one whose handler waits 5 ms for somebody else (slow_service.py): bound by waiting, not by CPU.

Takes about two minutes, on a PostgreSQL and a Kafka of its own.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import meter
import uvloop
from aiokafka.admin import AIOKafkaAdminClient
from bench import describe_machine
from ftgo_contracts.channels import ALL_CHANNELS, CREATE_ORDER_REPLIES
from ftgo_contracts.kitchen.commands import CreateTicket, TicketLineItem
from ftgo_local.platform import Platform
from ftgo_local.services import Service, ServiceSpec, service_environment
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox.writer import command_message, event_message
from ftgo_messaging.transports.kafka.publisher import KafkaPublisher
from ftgo_messaging.transports.kafka.topics import ensure_topics
from slow_service import EVENTS, WAIT_SECONDS, Happened

PORT = 8900
WORKERS = (1, 2, 4)
JOIN_SECONDS = 60.0
DRAIN_SECONDS = 300.0
AT_ONCE = 2000
# In small batches: a transaction of 500 messages would wait for two and a half seconds.
SLOW = ("/usr/bin/env", "FTGO_BATCH=100", sys.executable, str(Path(__file__).with_name("slow_service.py")))


@dataclass
class Result:
    """``cores``: how many each kind of process kept busy while the rate was measured."""

    service: str
    workers: int
    messages: int
    per_second: float
    cores: dict[str, float]


class Bench:
    """One PostgreSQL, one Kafka, and processes of services on ports of their own. ``pids`` is for the meter of CPU."""

    def __init__(self, platform: Platform, port: int) -> None:
        self.platform = platform
        self.pids: dict[str, int] = {}
        self._port = port

    @asynccontextmanager
    async def running(self, name: str, service: str, command: Sequence[str]) -> AsyncIterator[str]:
        """A process of this service, ready; stopped afterwards. Yields its URL."""
        port, self._port = self._port, self._port + 1
        dsn = self.platform.postgres.service_dsn(service)
        environment = service_environment(service, port, dsn, self.platform.kafka.bootstrap)
        log = self.platform.state.logs / f"{name}.log"
        process = Service(ServiceSpec(service, (), command), port, environment, log, self.platform.state.path)
        await process.start()
        try:
            await process.wait_until_ready()
            self.pids[name] = process.pid or 0
            yield process.url
        finally:
            self.pids.pop(name, None)
            await asyncio.to_thread(process.stop)

    async def once(self, service: str, command: Sequence[str]) -> None:
        """A command of this service, until it has ended. Raises PlatformError with its log."""
        dsn = self.platform.postgres.service_dsn(service)
        environment = service_environment(service, self._port, dsn, self.platform.kafka.bootstrap)
        spec = ServiceSpec(service, command, ())
        log = self.platform.state.logs / f"{service}.log"
        await Service(spec, self._port, environment, log, self.platform.state.path).migrate()

    async def drain(self, group: str, workers: int, command: Sequence[str], messages: Sequence[Message]) -> Result:
        """The rate at which so many workers handle these messages. The group's name is that of the service."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.platform.kafka.bootstrap)
        await admin.start()
        try:
            async with self._workers(group, workers, command):
                await _until(lambda: _joined(admin, group, workers), JOIN_SECONDS)
                before = await _committed(admin, group)
                sending = asyncio.create_task(self._publish(messages))
                first, last = len(messages) // 10, len(messages) * 9 // 10
                await _until(lambda: _reached(admin, group, before + first), DRAIN_SECONDS)
                began, done = time.perf_counter(), await _committed(admin, group)
                with meter.cpu(self) as cpu:  # type: ignore[arg-type] - it asks for the pids alone
                    await _until(lambda: _reached(admin, group, before + last), DRAIN_SECONDS)
                    seconds, done = time.perf_counter() - began, await _committed(admin, group) - done
                await sending
                await _until(lambda: _reached(admin, group, before + len(messages)), DRAIN_SECONDS)
        finally:
            await admin.close()
        cores = {
            "workers": sum(s for name, s in cpu.seconds.items() if name.startswith(f"{group}-worker")),
            "relay": cpu.seconds.get("kitchen-relay", 0.0),
            "PostgreSQL": cpu.seconds["postgres"],
            "Kafka": cpu.seconds["kafka"],
            "bench": cpu.seconds["generator"],
            "others": cpu.seconds["others"],
        }
        return Result(
            group, workers, len(messages), done / seconds, {name: round(s / seconds, 2) for name, s in cores.items()}
        )

    @asynccontextmanager
    async def _workers(self, group: str, count: int, command: Sequence[str]) -> AsyncIterator[None]:
        if count == 0:
            yield
            return
        async with self.running(f"{group}-worker-{count}", group, command), self._workers(group, count - 1, command):
            yield

    async def _publish(self, messages: Sequence[Message]) -> None:
        publisher = KafkaPublisher(self.platform.kafka.bootstrap, "bench")
        try:
            for start in range(0, len(messages), AT_ONCE):
                if not all(await publisher.publish(messages[start : start + AT_ONCE])):
                    raise RuntimeError("Kafka refused a message")
        finally:
            await publisher.close()


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the broker decides
            await asyncio.sleep(0.02)


async def _joined(admin: AIOKafkaAdminClient, group: str, members: int) -> bool:
    """Whether the group has so many members, each with its partitions."""
    (answer,) = await admin.describe_consumer_groups([group])
    _error, _name, state, _type, _protocol, found, *_ = answer.groups[0]
    return state == "Stable" and len(found) == members


async def _committed(admin: AIOKafkaAdminClient, group: str) -> int:
    return sum(max(0, o.offset) for o in (await admin.list_consumer_group_offsets(group)).values())


async def _reached(admin: AIOKafkaAdminClient, group: str, position: int) -> bool:
    return await _committed(admin, group) >= position


# -- the two services ------------------------------------------------------------------------------------------------


async def kitchen(bench: Bench, count: int) -> AsyncIterator[Result]:
    await bench.once("kitchen", (sys.executable, "-m", "ftgo_kitchen.entrypoints.migrate"))

    def part(name: str) -> tuple[str, ...]:
        return (sys.executable, "-m", f"ftgo_kitchen.entrypoints.{name}")

    async with (
        bench.running("kitchen-api", "kitchen", part("api")) as url,
        bench.running("kitchen-relay", "kitchen", part("relay")),
    ):
        restaurant = await _restaurant(url)
        # Once without counting: the broker's compiler and the caches of PostgreSQL are cold.
        await bench.drain("kitchen", 1, part("worker"), [_create_ticket(restaurant) for _ in range(count // 5)])
        for workers in WORKERS:
            messages = [_create_ticket(restaurant) for _ in range(count)]
            yield await bench.drain("kitchen", workers, part("worker"), messages)
            await _outbox_is_empty(bench.platform.postgres.service_dsn("kitchen"))


async def _restaurant(url: str) -> str:
    menu = {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"}]}
    address = {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"}
    async with httpx.AsyncClient(trust_env=False) as client:
        body = {"name": "The Bench", "address": address, "menu": menu}
        answer = await client.post(f"{url}/restaurants", json=body)
    return str(answer.raise_for_status().json()["id"])


def _create_ticket(restaurant: str) -> Message:
    """As the saga of a new order sends it."""
    line = TicketLineItem(menu_item_id="1", name="Soup", quantity=2)
    order = new_id()
    command = CreateTicket(order_id=order, restaurant_id=restaurant, line_items=(line,))
    return command_message(command, new_id(), "bench", None, CREATE_ORDER_REPLIES, "create-order", order)


async def _outbox_is_empty(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:

        async def empty() -> bool:
            return await connection.fetchval("SELECT count(*) FROM outbox") == 0

        await _until(empty, DRAIN_SECONDS)
    finally:
        await connection.close()


async def slow(bench: Bench, seconds: float) -> AsyncIterator[Result]:
    await bench.once("slow", (*SLOW, "tables"))
    for workers in WORKERS:
        count = round(seconds * workers / WAIT_SECONDS)
        messages = [event_message(Happened(), new_id(), "bench", None, new_id(), 1) for _ in range(count)]
        yield await bench.drain("slow", workers, SLOW, messages)


# -- the report ------------------------------------------------------------------------------------------------------


def _print(result: Result, one: Result) -> None:
    cores = "".join(f"{busy:11.2f}" for busy in result.cores.values())
    times = result.per_second / one.per_second
    print(f"{result.service:10}{result.workers:>8}{result.per_second:12,.0f}{times:10.2f}{cores}", flush=True)


async def measure(directory: Path, port: int, messages: int, seconds: float) -> list[Result]:
    results: list[Result] = []
    async with Platform(directory) as platform:
        await platform.create_databases(["kitchen", "slow"])
        await ensure_topics(platform.kafka.bootstrap, [c.name for c in (*ALL_CHANNELS, EVENTS)])
        bench = Bench(platform, port)
        bench.pids = {"postgres": platform.postgres.pid or 0, "kafka": platform.kafka.pid or 0}
        for service in (kitchen(bench, messages), slow(bench, seconds)):
            one = None
            async for result in service:
                one = one or result
                _print(result, one)
                results.append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=40000, help="backlog of the kitchen (default 40000)")
    parser.add_argument("--seconds", type=float, default=8, help="backlog of the slow one: of one worker (default 8)")
    parser.add_argument("--port-offset", type=int, default=0, help=f"added to the ports from {PORT} on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    chosen = parser.parse_args()
    if not 1000 <= chosen.messages <= 500_000 or not 1 <= chosen.seconds <= 60:
        parser.error("--messages is 1000 to 500000, --seconds 1 to 60")
    machine: dict[str, Any] = describe_machine()
    print(f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}; everything on them together;")
    print(f"load average before: {machine['load_average_before']:.2f}.\n")
    print(f"{'':10}{'':>8}{'messages':>12}{'':10}{'cores busy':>11}")
    names = ("workers", "relay", "PostgreSQL", "Kafka", "bench", "others")
    print(f"{'service':10}{'workers':>8}{'/s':>12}{'times one':>10}" + "".join(f"{name:>11}" for name in names))
    directory = Path(tempfile.mkdtemp(prefix="ftgo-scaling-"))
    try:
        results = uvloop.run(measure(directory, PORT + chosen.port_offset, chosen.messages, chosen.seconds))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine, "results": [vars(r) for r in results]}, indent=1))


if __name__ == "__main__":
    main()
