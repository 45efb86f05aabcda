"""A process of its own, as a container would run it: attacked, it stays below the container's limit of memory, and
whoever sends a request in one go is answered meanwhile. No database and no Kafka: HTTP is what is asked here."""

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from ftgo_local.ports import free_port
from ftgo_messaging.testing.eventually import eventually

CONTAINER = 184 * 1024  # kB, in docker-compose.yml
HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LARGE_BODY = HEAD + b"Content-Length: 60000\r\n\r\n" + b"x" * 59_000
LARGE_HEAD = HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 300) for n in range(90))
ATTACKS: dict[str, tuple[int, bytes]] = {
    "one head of 64 MB": (1, HEAD + b"X: " + b"x" * 64_000_000),
    "100,000 headers": (1, HEAD + b"X: x\r\n" * 100_000),
    "14 MB of requests": (1, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 330_000),
    "requests behind requests": (200, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3_000),
    "a chunk that never ends": (100, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 600_000),
    "an endless trailer": (100, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 600_000),
    "silence": (3_000, b""),
    "slow heads": (3_000, b"G"),
    "slow bodies": (3_000, HEAD + b"Content-Length: 10\r\n\r\n{"),
    "large slow heads": (2_000, LARGE_HEAD),
    "large slow bodies": (2_000, LARGE_BODY),
    "answers that nobody reads": (1_000, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a description that nobody reads": (1_000, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}


IN_A_FEW_SECONDS = {"one head of 64 MB", "14 MB of requests", "large slow bodies", "answers that nobody reads"}


@pytest.fixture(autouse=True)
def _enough_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))


@asynccontextmanager
async def running() -> AsyncIterator[tuple[int, int]]:
    """The process's id, and the port where it answers."""
    port = free_port()
    environment = {
        **os.environ,
        "FTGO_SMALL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere",
        "FTGO_SMALL_PORT": str(port),
        "FTGO_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "small_service", "api"),
        cwd=Path(__file__).parent,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def answers() -> None:
        try:
            await ask(port)
        except (httpx.HTTPError, OSError) as error:
            raise AssertionError from error

    try:
        await eventually(answers, within=30)
        yield process.pid, port
    finally:
        process.kill()
        await process.wait()


async def ask(port: int) -> None:
    """What an honest client does, on a connection of its own."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:
        answer = await http.post("/echo", json={"name": "T"})
        assert answer.status_code == 200, answer.text


def most_memory(pid: int) -> int:
    """kB that were resident at the most, since its start."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise AssertionError("the process is gone")


class Deaf(asyncio.Protocol):
    """Sends, and reads nothing."""

    def __init__(self, sends: bytes) -> None:
        self.sends = sends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        transport.write(self.sends)


async def attack(port: int, connections: int, sends: bytes, meanwhile: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    open_ones: list[asyncio.BaseTransport] = []
    try:
        for number in range(connections):
            transport, _ = await loop.create_connection(lambda: Deaf(sends), "127.0.0.1", port)
            open_ones.append(transport)
            if number % 500 == 499:
                await meanwhile()
        for _ in range(5):
            await meanwhile()
    finally:
        for transport in open_ones:
            transport.abort()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", [name if name in IN_A_FEW_SECONDS else pytest.param(name, marks=pytest.mark.slow) for name in ATTACKS]
)
async def test_an_attack_takes_neither_the_memory_nor_the_place_of_others(name: str) -> None:
    async with running() as (pid, port):
        await attack(port, *ATTACKS[name], lambda: ask(port))
        assert most_memory(pid) < CONTAINER
        await ask(port)


async def test_readiness_and_metrics_say_who_was_closed() -> None:
    async with running() as (_, port):
        await attack(port, 3_000, b"G", lambda: ask(port))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:
            closed = (await http.get("/readyz")).json()["http"]["closed"]["room"]
            assert closed > 0
            assert f'ftgo_http_connections_closed_total{{why="room"}} {closed:.1f}' in (await http.get("/metrics")).text
