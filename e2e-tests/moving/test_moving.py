"""`ftgo broker move` while customers order, and a service is killed in the middle: nothing is lost, nothing happens
twice, the order per key is kept, and nobody is refused but by the service that was dead."""

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from checker import INVARIANTS, check
from evidence import load
from ftgo_local.brokers.kinds import KINDS, absence
from ftgo_local.ports import is_free
from ftgo_local.services import is_ready
from ftgo_messaging.testing.eventually import eventually
from generator import Generator, Workload
from handling import in_order, once
from journal import Journal
from system import System

ORDERS_A_SECOND = 6.0
SETTLED_BEFORE = 20
BUSY_SECONDS = 25.0
LATER_SECONDS = 5.0
VICTIM = "order"
"""It sends commands and reads replies: with it the relay, the sagas and the requests of customers stop."""
NEEDS_THE_LOG = {"I4", "I5", "I6"}
"""Of the checker's invariants: ``handling`` has those that take their place."""
TARGETS = [
    pytest.param("nats", "polling"),
    pytest.param("nats", "log-tailing", marks=pytest.mark.slow),
    pytest.param("rabbitmq", "polling", marks=[pytest.mark.slow, pytest.mark.brokers]),
    pytest.param("valkey", "polling", marks=[pytest.mark.slow, pytest.mark.brokers]),
]


@pytest.fixture
def folder() -> Path:
    """One that the servers' user can enter; it stays when the test fails."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-moving-"))
    path.chmod(0o755)
    (path / "evidence").mkdir()
    return path


@pytest.mark.embedded("it starts and moves brokers")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("target", "relay"), TARGETS)
async def test_orders_go_on_while_the_broker_is_exchanged_and_a_service_is_killed(
    target: str, relay: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := await asyncio.to_thread(absence, target, folder):
        pytest.skip(str(missing))
    monkeypatch.setenv("FTGO_RELAY", relay)
    system = System(folder / "state", folder / "evidence")
    try:
        await system.start("kafka")
        with Journal(system.evidence / "history.jsonl") as history:
            story = await move_under_load(system, target, history)
        await eventually(lambda: at_rest(system), within=60, every=0.5)
        await system.keep_evidence(await system.unrest())
        await assert_only(target, system)
    finally:
        await system.run("down")
    assert_right(system, story)
    await system.run("reset", "--yes")
    shutil.rmtree(folder)


class Story:
    """When what happened, in seconds of the wall clock."""

    asked: float
    killed: float
    back: float
    moved: float


async def move_under_load(system: System, target: str, history: Journal) -> Story:
    """Customers come before, meanwhile and afterwards."""
    story, workload = Story(), Workload(rate=ORDERS_A_SECOND)
    load = asyncio.create_task(Generator(system, history, workload, seed=7).run(BUSY_SECONDS))  # type: ignore[arg-type]
    try:
        await until(lambda: workload.tally.settled >= SETTLED_BEFORE, load)
        story.asked = time.time()
        moving = asyncio.create_task(system.run("broker", "move", target, "--within", "90"))
        await until(lambda: bool(system.addresses["read"]), moving)
        story.killed = time.time()
        system.control.kill(VICTIM)
        story.back = await back_again(system)
        said = await moving
        story.moved = time.time()
        assert f"The broker is {KINDS[target].title} now. Kafka is stopped" in said
        later = Generator(system, history, Workload(rate=ORDERS_A_SECOND), seed=8)  # type: ignore[arg-type]
        await asyncio.gather(load, later.run(LATER_SECONDS))
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    return story


async def back_again(system: System) -> float:
    """When the service that was killed is ready again."""

    async def ready() -> float:
        assert system.control.state.units[VICTIM].restarts
        async with httpx.AsyncClient(trust_env=False) as client:
            assert await is_ready(client, system.urls[VICTIM])
        return time.time()

    return await eventually(ready, within=60, every=0.05)


async def until(condition: Any, other: "asyncio.Task[Any]") -> None:
    """Wait for the condition; what ends the task that goes on meanwhile ends the waiting."""
    async with asyncio.timeout(90):
        while not condition():
            if other.done():
                other.result()
            await asyncio.sleep(0.02)


async def at_rest(system: System) -> None:
    assert await system.unrest() == []


async def assert_only(target: str, system: System) -> None:
    """The old broker is gone, and the services do not know it any more."""
    state = system.control.state
    assert (state.broker, state.beside) == (target, "")
    assert "kafka" not in state.units
    assert is_free(state.ports["kafka"])
    assert system.addresses["read"] == []
    assert system.addresses["send"] == state.broker_url
    assert state.units[VICTIM].restarts == 1
    async with httpx.AsyncClient(trust_env=False) as client:
        for url in system.urls.values():
            broker = (await client.get(f"{url}/readyz")).json()["broker"]
            assert (broker["sends"], broker["reads"], broker["unmoved"]) == (target, [target], 0)


def assert_right(system: System, story: Story) -> None:
    evidence, verdict = load(system.evidence), check(system.evidence)
    assert set(verdict.violations) <= NEEDS_THE_LOG < set(INVARIANTS), verdict.violations
    assert [*once(evidence), *in_order(evidence)] == []

    began = {line["op"]: line["wall"] for line in evidence.history if line["kind"] == "invoke"}
    # A time-out before is one of this machine.
    failed = [line for line in evidence.history if line["kind"] == "unknown" and line["wall"] >= story.asked]
    excused = [
        line
        for line in failed
        if line["service"] == VICTIM and began[line["op"]] <= story.back and line["wall"] >= story.killed
    ]
    assert [line for line in failed if line not in excused] == []
    assert not {line["status"] for line in evidence.history if line["kind"] == "fail"} - {404, 409, 422}

    accepted = [line["wall"] for line in evidence.history if (line["what"], line["kind"]) == ("create", "ok")]
    phases = Counter("before" if at < story.asked else "after" if at > story.moved else "during" for at in accepted)
    assert set(phases) == {"before", "during", "after"}, phases
    assert story.killed < story.moved
