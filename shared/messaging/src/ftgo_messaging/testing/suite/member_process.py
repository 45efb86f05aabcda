"""A member of a consumer as a process of its own, which a test can kill: it does what JSON says, and tells it in lines.

python -m ftgo_messaging.testing.suite.member_process JSON
"""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.testing.suite.members import Member, Wire, lanes_of, package_of
from ftgo_messaging.transports.port import Transport

PROGRAM = "ftgo_messaging.testing.suite.member_process"


@asynccontextmanager
async def member_process(wire: Wire, do: str, **settings: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """It does what is named so below, and writes JSON lines to its standard output. Killed at the end."""
    settings |= {"do": do, "package": package_of(wire.transport()), "url": wire.subject.url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROGRAM, json.dumps(settings), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told(process: asyncio.subprocess.Process, within: float = 30) -> Any:
    """The next line of a process."""
    if process.stdout is None:
        raise ValueError("it has no standard output that is read here")
    async with asyncio.timeout(within):
        line = await process.stdout.readline()
    if not line:
        raise AssertionError("the member's process has ended: its standard error says why")
    return json.loads(line)


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def growth(
    transport: Transport, consumer: str, channel: Channel, batches: int, used: Callable[[], int] = resident
) -> int:
    """By how many bytes what is ``used`` in this process grows at most while a slow handler works."""
    before, sizes = used(), [0]
    member = Member(transport, consumer, [channel], [])
    await member.subscription.open()
    await member.assign(lanes_of([channel]))
    for _ in range(batches):
        batch = await member.taken(100)
        await asyncio.sleep(0.1)  # the slow handler
        member.subscription.settle(batch)
        sizes.append(used())
    await member.end()
    return max(sizes) - before


async def _main(do: str, package: str, url: str, consumer: str, channel: str, count: int) -> None:
    transport: Transport = importlib.import_module(package).transport(url)
    reads = Channel(channel, Kind.COMMAND, key=str)
    if do == "grow":
        print(json.dumps(await growth(transport, consumer, reads, count)), flush=True)
        await transport.close()
        return
    member = Member(transport, consumer, [reads], [])
    await member.subscription.open()
    await member.assign(lanes_of([reads]))
    batch = await member.taken(count, 60)
    print(json.dumps([record.origin for record in batch.records]), flush=True)
    await asyncio.sleep(600)  # until it is killed, with the batch in hand


if __name__ == "__main__":
    asyncio.run(_main(**json.loads(sys.argv[1])))
