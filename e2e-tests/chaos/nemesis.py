"""The adversary: breaks things by a schedule that follows from its seed, heals them, and writes down what it did."""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import httpx
from ftgo_local.services import SERVICES, is_ready
from intruders import Duplicates, LateReplies, LeaseStorm, Poison, RebalanceStorm
from journal import Journal
from slow_database import LostCommands, SlowCommits
from stand import Stand
from wires import Wire
from wires.kafka import KafkaWire

DISKS = {"broker_disk": "broker", "postgres_disk": "postgres"}
"""Faults that fill the disk of a unit."""
USUAL = ("kill", "pause", "postgres", "broker", "network", *DISKS, "duplicates", "rebalance")
"""What `make chaos` does unless it is told otherwise."""
OLD_NAMES = {"kafka": "broker", "kafka_disk": "broker_disk"}
"""Of faults, from when there was one broker."""
TARGETED = ("slow", "late-replies", "lost-commands", "poison")
"""What a planted bug may need. Poison belongs into the dead letters, and lost commands ask for patience."""

_LANES = {"kill": ("kill",), "pause": ("pause",), "outage": ("postgres", "broker", "network", *DISKS)}


@dataclass(frozen=True)
class Pace:
    """Seconds between two faults of a lane, on average; the lanes run side by side."""

    kill: float = 2.5
    pause: float = 6.0
    outage: float = 6.0
    duplicates: float = (
        0.15  # the share of records that are published again; a tenth, as a broker that is away takes none
    )
    pauses: tuple[float, ...] = (1.0, 3.0, 5.0, 12.0, 16.0)  # a lease and a session time-out last 10 s


class Nemesis:
    """``run`` makes trouble for a time; ``heal`` ends all of it and returns when everything is ready again."""

    def __init__(
        self, stand: Stand, wire: Wire, journal: Journal, seed: int, faults: Collection[str], pace: Pace
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._stand = stand
        self._journal = journal
        self._seed = seed
        self._faults = [f for f in (*USUAL, *TARGETED) if f in faults]
        self._pace = pace
        self._watching: set[asyncio.Task[None]] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        dsns = {s: stand.superuser_dsn(s) for s in SERVICES}
        dice = self._dice
        storm = (
            RebalanceStorm(wire, dice("rebalance"), self._tell)
            if isinstance(wire, KafkaWire)
            else LeaseStorm(wire, dice("rebalance"), self._tell, dsns)
        )
        self._background: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "duplicates": Duplicates(wire, dice("duplicates"), self._tell, pace.duplicates).run,
            "rebalance": storm.run,
            "late-replies": LateReplies(wire, dice("late-replies"), self._tell).run,
            "poison": Poison(wire, dice("poison"), self._tell).run,
        }
        self._slow = SlowCommits(dsns) if "slow" in self._faults else None
        self._losing = LostCommands(dsns) if "lost-commands" in self._faults else None

    def _dice(self, purpose: str) -> random.Random:
        # One generator for each lane: what happens in one does not move the others.
        return random.Random(f"{self._seed} {purpose}")

    def _tell(self, fault: str, phase: str = "begin", **details: Any) -> None:
        if phase == "begin":
            self.counts[fault] += 1
        self._journal.write(fault=fault, phase=phase, **details)

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for database_fault in (self._slow, self._losing):
            if database_fault is not None:
                await database_fault.install()
                self._tell(database_fault.name)
        lanes = [
            asyncio.create_task(self._lane(lane, [f for f in members if f in self._faults], end), name=f"lane-{lane}")
            for lane, members in _LANES.items()
        ]
        self._running = {f: asyncio.create_task(run()) for f, run in self._background.items() if f in self._faults}
        await asyncio.gather(*lanes)
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        await self._end(f for f in list(self._running) if f != "duplicates")

    async def _end(self, faults: Iterable[str]) -> None:
        """Cancelled again and again: a client that is giving up a connection at that moment may keep it to itself."""
        tasks = [self._running.pop(fault) for fault in faults]
        async with asyncio.timeout(30):
            while waiting := [task for task in tasks if not task.done()]:
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting, timeout=1)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def heal(self, timeout: float = 120.0) -> None:
        """End all trouble. Raises TimeoutError when something does not come back."""
        for proxy in self._stand.proxies.values():
            proxy.heal()
        for name in (*SERVICES, "postgres", self._stand.broker):
            self._stand.signal(name, signal.SIGCONT)
        for ballast in self._stand.ballast.values():
            ballast.unlink(missing_ok=True)
        async with asyncio.timeout(timeout), httpx.AsyncClient(timeout=5, trust_env=False) as http:
            while not (self._stand.running() and all([await is_ready(http, url) for url in self._stand.urls.values()])):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        for database_fault in (self._slow, self._losing):
            if database_fault is not None:
                await database_fault.remove()
        # Until here: what the last faults have held back flows now, and is to be doubled as well.
        await self._end(list(self._running))
        for task in list(self._watching):
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._tell("all", "heal")

    # -- lanes -----------------------------------------------------------------------------------------------------

    async def _lane(self, lane: str, faults: list[str], end: float) -> None:
        """One fault after the other. Its schedule is drawn from the lane's own dice."""
        if not faults:
            return
        dice = self._dice(lane)
        weights = [{"postgres": 4, "broker": 3, "network": 5}.get(f, 1) for f in faults]
        while True:
            wait = dice.uniform(0.3, 1.7) * getattr(self._pace, lane)
            if time.monotonic() + wait >= end:
                return
            await asyncio.sleep(wait)
            fault = dice.choices(faults, weights)[0]
            try:
                await getattr(self, f"_{fault}")(dice, end)
            except OSError as error:
                self._tell(fault, "failed", error=repr(error))

    async def _kill(self, dice: random.Random, end: float) -> None:
        unit, while_starting = dice.choice(SERVICES), dice.random() < 0.25
        if not while_starting and not await self._is_ready(unit):
            return  # most kills are to hit a service at work
        pid = self._stand.signal(unit, signal.SIGKILL)
        if pid is not None:
            self._tell("kill", unit=unit, pid=pid)
            self._watch(unit, "kill", pid)

    async def _pause(self, dice: random.Random, end: float) -> None:
        unit, seconds = dice.choice(SERVICES), dice.choice(self._pace.pauses)
        pid = self._stand.signal(unit, signal.SIGSTOP)
        if pid is None:
            return
        self._tell("pause", unit=unit, pid=pid, seconds=seconds)
        await self._last(seconds, end)
        if self._stand.pid(unit) == pid:
            self._stand.signal(unit, signal.SIGCONT)
        self._tell("pause", "heal", unit=unit, pid=pid)

    async def _postgres(self, dice: random.Random, end: float) -> None:
        pid = self._stand.signal("postgres", signal.SIGQUIT)  # an immediate stop: no checkpoint, no farewell
        if pid is not None:
            self._tell("postgres", pid=pid)
            await self._until_back("postgres", pid, end)
            self._tell("postgres", "heal", pid=pid)

    async def _broker(self, dice: random.Random, end: float) -> None:
        unit = self._stand.broker
        pid = self._stand.signal(unit, signal.SIGKILL)
        if pid is not None:
            self._tell("broker", unit=unit, pid=pid)
            await self._until_back(unit, pid, end)
            self._tell("broker", "heal", unit=unit, pid=pid)

    async def _network(self, dice: random.Random, end: float) -> None:
        where = dice.choice(list(self._stand.proxies))
        trouble = dice.choice(["reset", "delay", "hold", "drop_answers", "half_open"])
        seconds = dice.choice([1.0, 2.0, 4.0, 8.0])
        proxy = self._stand.proxies[where]
        self._tell("network", where=where, trouble=trouble, seconds=seconds)
        if trouble == "delay":
            proxy.delay(dice.uniform(0.02, 0.3))
        else:
            getattr(proxy, trouble)()
        if trouble != "reset":
            await self._last(seconds, end)
        proxy.heal()
        self._tell("network", "heal", where=where, trouble=trouble)

    async def _broker_disk(self, dice: random.Random, end: float) -> None:
        """Kafka ends, and cannot start, until there is room again."""
        await self._full("broker_disk", dice, end)

    async def _postgres_disk(self, dice: random.Random, end: float) -> None:
        """Tables cannot grow (an error), and sooner or later the log cannot (a panic, and no start)."""
        await self._full("postgres_disk", dice, end)

    async def _full(self, fault: str, dice: random.Random, end: float) -> None:
        ballast = self._stand.ballast[DISKS[fault]]
        unit = self._stand.broker if fault == "broker_disk" else DISKS[fault]
        self._tell(fault)
        await asyncio.to_thread(_fill, ballast)
        await self._last(dice.uniform(4, 8), end)
        ballast.unlink(missing_ok=True)
        await self._until_running(unit, 60)
        self._tell(fault, "heal")

    async def _is_ready(self, unit: str) -> bool:
        async with httpx.AsyncClient(timeout=1, trust_env=False) as http:
            return await is_ready(http, self._stand.urls[unit])

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def _last(self, seconds: float, end: float) -> None:
        await asyncio.sleep(max(0.0, min(seconds, end - time.monotonic())))

    async def _until_back(self, unit: str, old: int, end: float, timeout: float = 60.0) -> None:
        """Until a successor of the process runs."""
        deadline = time.monotonic() + timeout
        while self._stand.pid(unit) in {None, old} and time.monotonic() < deadline:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
        await self._until_running(unit, max(0.0, deadline - time.monotonic()))

    async def _until_running(self, unit: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            state = self._stand.state.read()
            if state is not None and state.units[unit].status == "running":
                return
            await asyncio.sleep(0.1)

    def _watch(self, unit: str, fault: str, old: int) -> None:
        """Note when a killed service is ready again, while the lane goes on."""

        async def watch() -> None:
            async with httpx.AsyncClient(timeout=3, trust_env=False) as http:
                for _ in range(300):
                    await asyncio.sleep(0.2)
                    if self._stand.pid(unit) not in {None, old} and await is_ready(http, self._stand.urls[unit]):
                        self._tell(fault, "heal", unit=unit, pid=old)
                        return

        task = asyncio.create_task(watch())
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)


def _fill(ballast: Any) -> None:
    """Write until the disk is full."""
    block = b"\0" * 1024 * 1024
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(block) == len(block):
            pass
