"""`ftgo up` on each broker that can run here, with two services that do nothing, driven by commands."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ftgo_contracts.channels import READERS
from ftgo_local.brokers.kinds import KINDS, absence
from ftgo_local.kafka import Kafka
from ftgo_local.ports import BROKER_PORTS, DEFAULT_PORTS, free_port
from ftgo_local.state import StateDirectory
from up_process import Up, alive, eventually

pytestmark = pytest.mark.embedded("it is what is tested")
PORTS = [*DEFAULT_PORTS, *(name for names in BROKER_PORTS.values() for name in names)]
SLOW = ("rabbitmq", "activemq")
"""They take half a minute to start, or a minute for all of it."""
OTHERS = [
    pytest.param(kind.name, marks=pytest.mark.slow if kind.name in SLOW else ())
    for kind in KINDS.values()
    if kind.runs and kind.name != "kafka"
]


@pytest.fixture(scope="module")
def made_once() -> Iterator[Up]:
    """Below a folder that the servers' user can enter (pytest's are closed to it, when root tests)."""
    folder = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    folder.chmod(0o755)
    up = Up(folder / "state", {name: free_port() for name in PORTS})
    yield up
    up.end()
    shutil.rmtree(folder)


@pytest.fixture
def down(made_once: Up) -> Up:
    """Nothing runs, and no broker is remembered."""
    made_once.end()
    return made_once


@pytest.fixture(params=OTHERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name: str = request.param
    if missing := absence(name, tmp_path):
        pytest.skip(str(missing))
    return name


def pid_of(up: Up, unit: str) -> int | None:
    state = StateDirectory(up.path).read()
    return state.units[unit].pid if state and unit in state.units else None


def running_again(up: Up, unit: str, old: int) -> bool:
    state = StateDirectory(up.path).read()
    return state is not None and state.units[unit].status == "running" and state.units[unit].pid != old


def test_the_broker_has_its_own_name_everywhere_and_comes_back_when_it_is_killed(down: Up, broker: str) -> None:
    up = down.started(FTGO_BROKER=broker)
    status = up.status()
    assert status["broker"] == broker
    assert status[broker]["status"] == "running"
    assert f"127.0.0.1:{up.ports[broker]}" in status[broker]["url"]
    assert "kafka" not in status
    assert f"1 made at {KINDS[broker].title}, 0 were there" in up.text
    assert up.ftgo("logs", broker).returncode == 0

    old = pid_of(up, broker)
    assert old is not None
    killed = up.ftgo("kill", broker)
    assert f"{broker} (pid {old}) is killed" in killed.stdout, killed.stderr
    eventually(lambda: running_again(up, broker, old), f"{broker} runs again")

    assert up.ftgo("stop", broker).stdout.startswith(f"{broker} is stopped")
    assert up.status()[broker]["status"] == "stopped"
    assert up.ftgo("start", broker).returncode == 0
    other = up.ftgo("stop", "kafka")
    assert other.returncode == 1
    assert f"The broker here is {broker}, not kafka." in other.stderr

    pids = up.pids()
    assert up.ftgo("down").returncode == 0
    assert not any(alive(pid) for pid in pids)
    again = down.started()  # without a name: that of the last start
    assert again.status()["broker"] == broker
    assert "0 made" in again.text
    assert "The broker was" not in again.text


def test_a_change_of_the_broker_is_told_and_goes_on(down: Up, broker: str) -> None:
    down.started()
    assert down.status()["broker"] == "kafka"
    assert down.ftgo("down").returncode == 0
    up = down.started(FTGO_BROKER=broker)
    assert f"The broker was Kafka and is {KINDS[broker].title} now." in up.text
    assert "`ftgo up --broker kafka`" in up.text
    assert up.status()["broker"] == broker


def test_without_a_broker_there_is_a_registry_and_no_server(down: Up) -> None:
    up = down.started(FTGO_BROKER="direct")
    status = up.status()
    assert status["broker"] == "direct"
    assert (status["direct"]["status"], status["direct"]["pid"]) == ("no broker", None)
    assert "no broker" in up.ftgo("status").stdout
    assert "1 made at direct HTTP, 0 were there" in up.text
    registry = json.loads((up.path / "direct" / "registry.json").read_text())
    readers = {consumer for consumers in READERS.values() for consumer in consumers}
    assert registry["consumers"].keys() == readers
    used = [url for urls in registry["consumers"].values() for url in urls]
    assert len(set(used)) == len(used)
    assert f"http://127.0.0.1:{up.ports['direct_kitchen']}" in registry["consumers"]["kitchen"]
    assert len(up.pids()) == 3  # PostgreSQL and the two services

    stopped = up.ftgo("stop", "kafka")
    assert stopped.returncode == 1
    assert "There is no broker" in stopped.stderr

    pids = up.pids()
    assert up.ftgo("down").returncode == 0
    assert not any(alive(pid) for pid in pids)
    again = down.started()  # without a name: as at the last start
    assert again.status()["broker"] == "direct"
    assert "0 made" in again.text
    assert up.ftgo("down").returncode == 0
    changed = down.started(FTGO_BROKER="valkey")
    assert "The broker was direct HTTP and is Valkey now." in changed.text
    assert "Nothing is left behind." in changed.text


def test_a_damaged_registry_is_written_anew(down: Up) -> None:
    down.started(FTGO_BROKER="direct")
    assert down.ftgo("down").returncode == 0
    registry = down.path / "direct" / "registry.json"
    registry.write_text("{")
    up = down.started()
    assert "1 made at direct HTTP" in up.text
    assert json.loads(registry.read_text())["consumers"]["kitchen"]


def test_a_port_of_a_consumer_that_is_taken_is_a_sentence(down: Up) -> None:
    with socket.create_server(("127.0.0.1", down.ports["direct_kitchen"])):
        assert down.start(FTGO_BROKER="direct").wait(60) == 1
    assert f"Port {down.ports['direct_kitchen']} (direct_kitchen) is used by" in down.text
    assert "FTGO_DIRECT_KITCHEN_PORT" in down.text


def test_a_killed_supervisor_leaves_nothing_of_the_broker_behind(down: Up, broker: str) -> None:
    up = down.started(FTGO_BROKER=broker)
    assert up.process is not None
    before = processes_below(up.path)
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    assert up.ftgo("down").returncode == 0
    assert before
    eventually(lambda: not processes_below(up.path), "servers' own children have ended", 20)


def processes_below(path: Path) -> list[psutil.Process]:
    """Those whose working directory is there; not the dead that nobody has collected."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(path.resolve()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_broker_elsewhere_is_used_and_none_is_started(down: Up, kafka: Kafka) -> None:
    up = down.started(FTGO_BROKER_URL=kafka.url)
    status = up.status()
    assert (status["kafka"]["status"], status["kafka"]["pid"], status["kafka"]["url"]) == ("elsewhere", None, kafka.url)
    assert "kafka" not in {unit.name for unit in (up.path / "logs").iterdir()}
    stopped = up.ftgo("stop", "kafka")
    assert stopped.returncode == 1
    assert "kafka runs elsewhere" in stopped.stderr
    assert kafka.pid is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://127.0.0.1:1", "The broker at kafka://127.0.0.1:1 cannot be reached"),
        ("amqp://u:secret@127.0.0.1:1/", "The broker at amqp://127.0.0.1:1/ cannot be reached"),
        ("stomp://127.0.0.1:1", "The broker at stomp://127.0.0.1:1 cannot be reached"),
        ("valkeys://127.0.0.1:1", "The broker at valkeys://127.0.0.1:1 cannot be reached"),
        ("tls://u:secret@127.0.0.1:1", "The broker at tls://127.0.0.1:1 cannot be reached"),
        ("http+static:///nowhere/registry.json", "The registry /nowhere/registry.json cannot be read"),
        ("carrier-pigeon://loft", "is no broker's scheme"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_sentence_and_leaves_nothing_running(down: Up, url: str, said: str) -> None:
    assert down.start(FTGO_BROKER_URL=url).wait(60) == 1
    assert said in down.text
    assert "Traceback" not in down.text
    assert "secret" not in down.text
    assert down.pids() == []


def test_the_command_line_tells_of_names_and_contradictions(tmp_path: Path) -> None:
    environment = {**os.environ, "FTGO_STATE_DIR": str(tmp_path), "FTGO_BROKER_URL": "nats://127.0.0.1:4222"}

    def ftgo(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "ftgo_local", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    unknown = ftgo("up", "--broker", "pigeon")
    assert unknown.returncode == 2
    assert "rabbitmq" in unknown.stderr
    both = ftgo("up", "--broker", "valkey")
    assert both.returncode == 1
    assert "FTGO_BROKER_URL is an address of NATS, and --broker asks for Valkey." in both.stderr
