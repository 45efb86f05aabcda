"""`ftgo broker move` with real brokers and two services that do nothing but follow: what the supervisor does, and what
the command says. That no message is lost by it, and none doubled, is shown in `e2e-tests/moving`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ftgo_local.brokers.nats import Nats
from ftgo_local.ports import BROKER_PORTS, DEFAULT_PORTS, free_port
from ftgo_local.state import StateDirectory
from up_process import Up, alive, eventually

pytestmark = pytest.mark.embedded("it is what is tested")


@pytest.fixture(scope="module")
def made_once() -> Iterator[Up]:
    """Below a folder that the servers' user can enter (pytest's are closed to it, when root tests)."""
    folder = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    folder.chmod(0o755)
    names = [*DEFAULT_PORTS, *(name for kind in ("kafka", "nats", "valkey") for name in BROKER_PORTS[kind])]
    up = Up(folder / "state", {name: free_port() for name in names})
    yield up
    up.end()
    shutil.rmtree(folder)


@pytest.fixture
def waits(tmp_path: Path) -> Path:
    """Where files let lanes wait."""
    return tmp_path


@pytest.fixture
def up(made_once: Up, waits: Path) -> Up:
    """On NATS, which starts fast, and anew."""
    made_once.end()
    return made_once.started(FTGO_BROKER="nats", FAKE_WAITS=str(waits))


def ports(up: Up) -> dict[str, str]:
    return {f"FTGO_{name.upper()}_PORT": str(port) for name, port in up.ports.items()}


def move(up: Up, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, **ports(up), "FTGO_STATE_DIR": str(up.path)}
    command = [sys.executable, "-m", "ftgo_local", "broker", "move", *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def moved(up: Up, *arguments: str) -> tuple[int, str, str]:
    process = move(up, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def addresses(up: Up) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((up.path / "addresses" / "brokers.json").read_text())
    return found


def state_of(up: Up) -> Any:
    state = StateDirectory(up.path).read()
    assert state is not None
    return state


def test_the_broker_is_another_one_and_no_service_was_started_again(up: Up) -> None:
    before, old = addresses(up), state_of(up).units
    assert (before["send"], before["read"]) == (f"nats://127.0.0.1:{up.ports['nats']}", [])
    assert (up.path / "addresses" / "brokers.json").stat().st_mode & 0o777 == 0o600
    assert up.ftgo("broker").stdout == f"The broker is NATS at nats://127.0.0.1:{up.ports['nats']}.\n"

    code, out, err = moved(up, "valkey")
    assert code == 0, err
    assert out.endswith("The broker is Valkey now. NATS is stopped, and keeps its data.\n")
    after, units = addresses(up), state_of(up).units
    assert (after["send"], after["read"]) == (f"valkey://127.0.0.1:{up.ports['valkey']}", [])
    assert after["generation"] > before["generation"] + 1  # a generation that read both was between
    assert "1 made at Valkey, 0 were there" in up.text
    assert "nats" not in units
    assert not alive(old["nats"].pid)
    assert {units[s].pid for s in ("order", "accounting")} == {old[s].pid for s in ("order", "accounting")}
    status = up.status()
    assert (status["broker"], status["valkey"]["status"], status["beside"]) == ("valkey", "running", None)

    assert up.ftgo("down").returncode == 0
    assert "The broker was Valkey" in up.ftgo("broker").stdout
    again = up.started()  # without a name: that to which it was moved
    assert again.status()["broker"] == "valkey"
    assert addresses(again) == after
    assert "goes on" not in again.text


def test_while_lanes_wait_both_are_there_and_a_move_that_was_broken_off_is_gone_on_with(up: Up, waits: Path) -> None:
    held = waits / "order.waits"
    held.touch()
    first = move(up, "valkey")
    eventually(lambda: state_of(up).move and "lanes" in state_of(up).move.waits_for, "lanes wait", 30)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=20)
    assert first.returncode == 1
    assert "It goes on moving to Valkey in the background." in err
    status = up.status()
    assert (status["broker"], status["beside"]) == ("valkey", "nats")
    assert {status[name]["status"] for name in ("valkey", "nats")} == {"running"}
    shown = up.ftgo("status").stdout
    assert "A move to Valkey" in shown
    assert "order: 2 lanes wait" in shown
    during = addresses(up)
    assert during["read"] == [f"nats://127.0.0.1:{up.ports['nats']}"]

    code, _, err = moved(up, "nats")
    assert code == 1
    assert "A move to Valkey is under way." in err
    code, _, err = moved(up, "valkey", "--within", "1")
    assert code == 1
    assert "not through after 1 s, and goes on. It waits: order: 2 lanes" in err

    # Killed in the middle, and begun again: both brokers, and the file as it was.
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    refused = up.start(FTGO_BROKER="nats")
    assert refused.wait(60) == 1
    assert "A move from NATS to Valkey is under way, and both have messages." in up.text
    up.started(FAKE_WAITS=str(waits))
    assert "The move from NATS to Valkey goes on: both are read." in up.text
    assert addresses(up) == during
    assert set(state_of(up).infrastructure) == {"valkey", "nats", "postgres"}

    held.unlink()
    code, _, err = moved(up, "valkey")
    assert code == 0 or "is Valkey already" in err, err
    eventually(lambda: addresses(up)["read"] == [], "the old broker is let go", 10)
    assert "nats" not in state_of(up).units


def test_a_new_broker_that_does_not_start_changes_nothing(up: Up) -> None:
    before, pids = addresses(up), up.pids()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", up.ports["valkey"]))
        server.listen()
        code, _, err = moved(up, "valkey")
    assert code == 1
    assert f"Port {up.ports['valkey']} (valkey) is used by" in err
    (up.path / "valkey").write_text("no folder")
    code, _, err = moved(up, "valkey")
    assert code == 1
    assert "What to do" in err
    assert "Traceback" not in err + up.text
    assert (addresses(up), up.pids(), state_of(up).broker, state_of(up).beside) == (before, pids, "nats", "")
    (up.path / "valkey").unlink()
    assert moved(up, "valkey")[0] == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """For data of another server."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def nats(folder: Path) -> AsyncIterator[Nats]:
    """One that runs elsewhere."""
    server = Nats(folder / "nats", free_port())
    await server.start()
    yield server
    server.stop()


def test_what_cannot_be_is_a_sentence(up: Up, nats: Nats) -> None:
    code, _, err = moved(up, "nats")
    assert (code, "The broker is NATS already." in err) == (1, True)
    code, _, err = moved(up, "pigeon")
    assert (code, "rabbitmq" in err) == (2, True)
    assert up.ftgo("down").returncode == 0
    code, _, err = moved(up, "valkey")
    assert (code, "ftgo is not up." in err) == (3, True)
    made_elsewhere = up.started(FTGO_BROKER_URL=nats.url)
    code, _, err = moved(made_elsewhere, "valkey")
    assert (code, "was named by FTGO_BROKER_URL." in err) == (1, True)
