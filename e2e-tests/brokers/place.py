"""A broker on which figures are taken: its server, started for this, or none; and how the suite reaches it."""

import json
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ftgo_local.brokers.kinds import KINDS, Broker, server
from ftgo_local.errors import PlatformError
from ftgo_local.ports import free_port
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.testing.suite.members import Action
from ftgo_messaging.transports import direct, transport_at
from ftgo_messaging.transports.port import Transport

DIRECT = "direct"
START_SECONDS = 120.0


class WithAddresses(direct.DirectTransport):
    """Gives an address to every consumer that a channel is declared for, as whoever starts a system does."""

    def __init__(self, path: Path) -> None:
        super().__init__(direct.transport(f"http+static://{path}")._registry)
        self._path = path

    async def declare(self, channels: Sequence[Channel], readers: Mapping[str, Collection[str]]) -> Sequence[str]:
        known = json.loads(self._path.read_text())
        for name in {name for names in readers.values() for name in names} - known["consumers"].keys():
            known["consumers"][name] = [f"http://127.0.0.1:{free_port()}"]
        self._path.write_text(json.dumps(known))
        return await super().declare(channels, readers)


@dataclass
class Place:
    """A ``Subject`` of the conformance suite. ``started``: seconds of the first start and of the next one. ``memory``
    gives the resident megabytes of the server and its helpers now."""

    make: Callable[[], Transport]
    version: str
    started: Sequence[float] = ()
    memory: Callable[[], float | None] = lambda: None
    pid: int | None = None
    url: str | None = None
    kill: Action | None = None
    stop: Action | None = None
    start: Action | None = None
    traits: object = field(init=False)

    def __post_init__(self) -> None:
        self.traits = self.make().traits

    def transport(self) -> Transport:
        return self.make()


@asynccontextmanager
async def place(name: str) -> AsyncIterator[Place]:
    """Everything is stopped and deleted at the end. Raises PlatformError where that broker cannot run."""
    folder = Path(tempfile.mkdtemp(prefix="ftgo-brokers-"))
    try:
        if name in KINDS and name != DIRECT:
            async with _with_server(name, folder) as found:
                yield found
        elif name == DIRECT:
            registry = folder / "registry.json"
            registry.write_text(json.dumps({"lanes": 12, "consumers": {}, "channels": {}}))
            yield Place(lambda: WithAddresses(registry), "HTTP/1.1")
        else:
            raise PlatformError(f"There is no server of {name}.", f"There are {', '.join(KINDS)} and {DIRECT}.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _with_server(name: str, folder: Path) -> AsyncIterator[Place]:
    unit = server(name, folder, lambda _: free_port(), folder / f"{name}.log")
    await unit.prepare()
    try:
        first = await _start(unit)
        unit.stop()
        again = await _start(unit)
        yield Place(lambda: transport_at(unit.url), _version(unit), (first, again), lambda: _resident(unit), unit.pid)
    finally:
        unit.stop()


async def _start(unit: Broker) -> float:
    began = time.perf_counter()
    await unit.start(timeout=START_SECONDS)
    return time.perf_counter() - began


def _version(unit: Broker) -> str:
    """The number of what runs; empty where it does not tell."""
    known = getattr(unit, "version", "") or getattr(unit, "known_version", str)()
    found = re.search(r"\d+(\.\d+)+", str(known))
    return found[0] if found else ""


def _resident(unit: Broker) -> float | None:
    pids = [unit.pid, *getattr(unit, "helpers", [])]
    processes = [psutil.Process(pid) for pid in pids if pid]
    processes += [child for process in processes for child in process.children(recursive=True)]
    return sum(process.memory_info().rss for process in set(processes)) / 1e6
