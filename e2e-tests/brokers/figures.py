"""Figures of a broker that the conformance suite does not take: latency, throughput, start, memory.

Sender, receiver and server share the machine. All goes through the port, as the outbox and a consumer use it.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.testing.suite.judging import id_of, message
from ftgo_messaging.testing.suite.members import Member, Wire
from ftgo_messaging.transports.port import Record
from place import Place

BODY = b"x" * 1000
KEYS = 97
WARM, LONE = 200, 1000
"""Messages, one at a time: before the clock counts, and while it does."""
CHUNK, MANY = 500, 20_000
"""Messages of one call, and of the whole throughput phase."""
SECONDS = 15.0
"""Of a phase at most. A broker that is slower sends fewer messages; the figure is a rate all the same."""


async def take(place: Place) -> dict[str, Any]:
    """Everything, in about half a minute."""
    idle = place.memory()
    lone = await in_own_wire(place, latency)
    many = await in_own_wire(place, throughput if place.make().traits.stored else end_to_end)
    rounded = {"start_s": [round(each, 2) for each in place.started]}
    loaded = place.memory()
    if idle is not None and loaded is not None:
        rounded["memory_mb"] = [round(idle), round(loaded)]
    return {"version": place.version, **rounded, **lone, **many}


async def in_own_wire(place: Place, phase: Callable[[Wire], Any]) -> dict[str, Any]:
    wire = Wire(place)  # type: ignore[arg-type] # its traits are known when it is made only
    try:
        found: dict[str, Any] = await phase(wire)
        return found
    finally:
        await wire.close()


async def latency(wire: Wire) -> dict[str, Any]:
    """From the call of ``publish`` until ``take`` has given it, with nothing else under way; and until the
    confirmation."""
    channel = await wire.channel("reader", kind=Kind.COMMAND)
    member, publisher = await wire.member("reader", channel), wire.publisher()
    arrived: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    def note(record: Record) -> None:
        arrived.put_nowait((id_of(record), time.perf_counter()))

    taken, confirmed = [], []
    async with _reading(member, note):
        until = time.monotonic() + SECONDS
        for n in range(WARM + LONE):
            sending = message(channel, f"entity-{n % KEYS}", n, body=BODY)
            began = time.perf_counter()
            await wire.publish([sending], publisher)
            ended = time.perf_counter()
            async with asyncio.timeout(wire.patience):
                while (found := await arrived.get())[0] != sending.id:
                    pass  # given a second time
            if n >= WARM:
                taken.append(found[1] - began)
                confirmed.append(ended - began)
            if len(taken) >= 100 and time.monotonic() > until:
                break
    return {"lone_messages": len(taken), "latency_ms": _quantiles(taken), "confirmed_ms": _quantiles(confirmed)}


async def throughput(wire: Wire) -> dict[str, Any]:
    """Sent in calls of 500, each confirmed, while nobody reads; then received by one member, and settled."""
    channel = await wire.channel("reader", kind=Kind.COMMAND)
    seconds, sent = await _send(wire, channel, MANY)
    member = await wire.member("reader", channel)
    came: set[str] = set()
    began = time.perf_counter()
    async with asyncio.timeout(4 * wire.patience):
        while len(came) < sent:
            batch = await member.take(CHUNK, 0.5)
            if batch is not None:
                came |= {id_of(record) for record in batch.records}
                member.subscription.settle(batch)
    received = time.perf_counter() - began
    return {"many_messages": sent, "sent_per_s": round(sent / seconds), "received_per_s": round(sent / received)}


async def end_to_end(wire: Wire) -> dict[str, Any]:
    """Where nothing is stored: a confirmation says that the member has settled it, so both rates are one."""
    channel = await wire.channel("reader", kind=Kind.COMMAND)
    member = await wire.member("reader", channel)
    async with _reading(member, lambda record: None):
        seconds, sent = await _send(wire, channel, MANY)
    rate = round(sent / seconds)
    return {"many_messages": sent, "sent_per_s": rate, "received_per_s": rate}


async def _send(wire: Wire, channel: Channel, most: int) -> tuple[float, int]:
    publisher, sent = wire.publisher(), 0
    await wire.publish([message(channel, "warm", -1, body=BODY)], publisher)
    began = time.perf_counter()
    while sent < most and time.perf_counter() < began + SECONDS:
        chunk = [message(channel, f"entity-{n % KEYS}", n, body=BODY) for n in range(sent, sent + CHUNK)]
        await wire.publish(chunk, publisher)
        sent += len(chunk)
    return time.perf_counter() - began, sent


@asynccontextmanager
async def _reading(member: Member, note: Callable[[Record], None]) -> AsyncIterator[None]:
    """Takes and settles what comes."""

    async def read() -> None:
        while True:
            batch = await member.take(CHUNK, 1.0)
            if batch is not None:
                for record in batch.records:
                    note(record)
                member.subscription.settle(batch)

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _quantiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": round(cuts[49] * 1000, 2), "p99": round(cuts[98] * 1000, 2)}
