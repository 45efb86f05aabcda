"""Whether a broker has its disk written through before it confirms: its calls of fsync are counted, by strace."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from figures import BODY
from ftgo_messaging.testing.suite.judging import message
from ftgo_messaging.testing.suite.members import Wire

CALLS = ("fsync", "fdatasync", "sync_file_range", "msync")
MESSAGES = 100


async def syncs_per_message(wire: Wire, pid: int) -> float | None:
    """Calls for each of a hundred messages, sent and confirmed one by one. None where nothing can be counted: without
    strace, or without the right to look into the server's process."""
    channel, publisher = await wire.channel("reader"), wire.publisher()
    await wire.publish([message(channel, "warm", -1)], publisher)
    if shutil.which("strace") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "calls"
        async with _tracing(pid, report) as traced:
            if not traced:
                return None
            for n in range(MESSAGES):
                await wire.publish([message(channel, f"entity-{n}", n, body=BODY)], publisher)
        lines = report.read_text().splitlines()
    return sum(f" {call}(" in line for line in lines for call in CALLS) / MESSAGES


@asynccontextmanager
async def _tracing(pid: int, report: Path) -> AsyncIterator[bool]:
    """The report is complete after the block."""
    command = ["strace", "-f", "-e", f"trace={','.join(CALLS)}", "-o", str(report), "-p", str(pid)]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
    )
    assert process.stderr is not None
    try:
        attached = b"attached" in await process.stderr.readline()
        saying = asyncio.create_task(process.stderr.read())  # else it would stand when the pipe is full
        yield attached
        if attached:
            process.send_signal(signal.SIGINT)
        await saying
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
