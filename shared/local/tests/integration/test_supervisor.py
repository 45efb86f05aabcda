"""`ftgo up` with real PostgreSQL and Kafka and two services that do nothing, driven as a user does: by commands."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ftgo_local.ports import BROKER_PORTS, DEFAULT_PORTS, free_port
from ftgo_local.state import StateDirectory
from up_process import Up, alive, eventually

pytestmark = pytest.mark.embedded("it is what is tested")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One state directory for all, up or down as the test before has left it: to make it anew takes its time."""
    up = Up(
        tmp_path_factory.mktemp("up") / "state",
        {name: free_port() for name in (*DEFAULT_PORTS, *BROKER_PORTS["kafka"])},
    )
    yield up
    up.end()


@pytest.fixture
def up(made_once: Up) -> Up:
    """Everything runs."""
    return made_once if made_once.runs else made_once.started()


@pytest.fixture
def down(made_once: Up) -> Up:
    """Nothing runs."""
    assert made_once.ftgo("down").returncode == 0
    return made_once


def test_up_starts_everything_and_status_tells(down: Up) -> None:
    up = down.started()
    status = up.status()
    assert set(status["services"]) == {"order", "accounting"}
    for service in status["services"].values():
        assert service["ready"]
        assert psutil.pid_exists(service["pid"])
        assert Path(service["log"]).exists()
    assert status["postgres"]["dsns"]["order"].endswith(f"127.0.0.1:{up.ports['postgres']}/ftgo_order")
    assert status["kafka"]["bootstrap"] == f"127.0.0.1:{up.ports['kafka']}"
    password = status["postgres"]["dsns"]["order"].split(":")[2].split("@")[0]
    assert all(password not in log.read_text() for log in (up.path / "logs").iterdir())


def test_a_second_up_is_refused_and_harms_nothing(up: Up) -> None:
    before = up.pids()
    second = up.ftgo("up")
    assert second.returncode == 3
    assert "already up" in second.stderr
    assert "Traceback" not in second.stderr
    assert up.pids() == before


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_process_is_started_again_at_once_and_its_log_says_so(up: Up) -> None:
    for name in ("order", "kafka", "postgres"):
        status = up.status()
        old = status["services"].get(name, status.get(name))["pid"]
        os.kill(old, signal.SIGKILL)

        def running_again(name: str = name, old: int = old) -> bool:
            state = StateDirectory(up.path).read()
            return state is not None and state.units[name].status == "running" and state.units[name].pid != old

        eventually(running_again, f"{name} runs again")
        log = up.ftgo("logs", name, "--lines", "1000").stdout
        assert f"{name} (pid {old}) was killed by SIGKILL: it is started again at once." in log


@pytest.mark.slow
def test_what_is_stopped_on_purpose_stays_stopped(up: Up) -> None:
    for name in ("accounting", "kafka"):
        done = up.ftgo("stop", name)
        assert done.returncode == 0, done.stderr
        status = up.status()
        unit = status["services"].get(name, status.get(name))
        assert (unit["status"], unit["pid"]) == ("stopped", None)
    time.sleep(1)  # what must not happen has no event to wait for
    assert len(up.pids()) == 2
    without_kafka = up.ftgo("start", "accounting")
    assert without_kafka.returncode == 0
    assert up.ftgo("start", "kafka").returncode == 0
    assert len(up.pids()) == 4


def test_restart_changes_the_pid(up: Up) -> None:
    old = up.status()["services"]["order"]["pid"]
    assert up.ftgo("restart", "order").returncode == 0
    service = up.status()["services"]["order"]
    assert service["pid"] != old
    assert service["ready"]


@pytest.mark.parametrize("damage", ["", "{", None])
def test_a_damaged_state_file_is_mended_while_everything_runs(up: Up, damage: str | None) -> None:
    before, file = up.pids(), up.path / "state.json"
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)
    eventually(lambda: file.exists() and file.read_text() != damage, "the supervisor writes it again")
    assert up.pids() == before
    assert up.ftgo("status").returncode == 0


def test_a_damaged_state_file_of_a_supervisor_that_was_killed_is_a_sentence(down: Up) -> None:
    file = down.path / "state.json"
    file.write_text("{")
    for command in ("status", "down", "up"):
        done = down.ftgo(command)
        assert done.returncode == 1
        assert "state.json is damaged" in done.stderr
        assert "What to do: See whether `ps -ef` shows" in done.stderr
        assert "Traceback" not in done.stderr
    file.unlink()
    assert down.ftgo("down").returncode == 0


def test_ctrl_c_stops_everything_in_order(up: Up) -> None:
    pids = up.pids()
    assert up.process is not None
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert not any(alive(pid) for pid in pids)
    positions = [up.text.index(step) for step in ("Stop services", "Stop kafka", "Stop postgres")]
    assert positions == sorted(positions)
    assert up.ftgo("status").returncode == 3


def test_down_from_another_terminal_stops_a_foreground_up(up: Up) -> None:
    pids = up.pids()
    assert up.ftgo("down").returncode == 0
    assert up.process is not None
    assert up.process.wait(60) == 0
    assert not any(alive(pid) for pid in pids)
    assert up.ftgo("down").stdout.strip() == "Nothing is running."


def test_what_a_killed_supervisor_leaves_is_ended_by_the_next_up(up: Up) -> None:
    orphans = up.pids()
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    assert all(psutil.pid_exists(pid) for pid in orphans)
    pids = up.started().pids()
    assert not any(alive(pid) for pid in orphans)
    assert up.text.count("was left behind by a killed ftgo up: it is stopped.") == len(orphans) == len(pids)


def test_down_ends_what_a_killed_supervisor_leaves(up: Up) -> None:
    orphans = up.pids()
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    done = up.ftgo("down")
    assert done.returncode == 0
    assert "left behind" in done.stdout
    assert not any(alive(pid) for pid in orphans)


def test_a_port_in_use_is_a_sentence(down: Up) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", down.ports["order"]))
        server.listen()
        assert down.start().wait(60) == 1
    assert f"Port {down.ports['order']} (order) is used by" in down.text
    assert "Traceback" not in down.text


def test_a_failing_service_is_shown_with_its_log_and_nothing_is_left_running(down: Up) -> None:
    assert down.start(FAKE_FAILURE="accounting").wait(60) == 1
    assert "FAILED Accounting" in down.text
    assert "| there is no cheese" in down.text
    assert "Traceback" not in down.text
    assert down.pids() == []


def test_reset_begins_anew(down: Up) -> None:
    assert down.ftgo("reset", "--yes").returncode == 0
    assert list(down.path.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_was_full_for_a_while_leaves_nothing_dead(roomy_disk: Any, tmp_path: Path) -> None:
    up = Up(roomy_disk.path / "state", {name: free_port() for name in (*DEFAULT_PORTS, *BROKER_PORTS["kafka"])})
    up.output = tmp_path / "out"
    up.started()
    try:
        roomy_disk.fill()
        for pid in up.pids():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: "postgres did not start" in up.text, "PostgreSQL finds the disk full")
        assert "The state cannot be written" in up.text
        assert up.runs
        roomy_disk.make_room()
        eventually(lambda: all_run(up), "all is back", 90)
        assert "The state is written again." in up.text
    finally:
        assert up.ftgo("down").returncode == 0
        assert up.process is not None
        up.process.wait(60)
    assert "Traceback" not in up.text


def all_run(up: Up) -> bool:
    state = StateDirectory(up.path).read()
    return state is not None and all(u.identity and u.identity.process() for u in state.units.values())
