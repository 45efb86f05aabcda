"""`ftgo up` of the fake platform as a process, and the commands that a user types in another terminal."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ftgo_local.state import StateDirectory

FAKE_PLATFORM = Path(__file__).parents[1] / "fake_platform.py"


def eventually(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)
    return result


def alive(pid: int) -> bool:
    """A zombie is not: whoever has to collect it may be slow."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Up:
    """A running `ftgo up`, and the commands of another terminal."""

    def __init__(self, path: Path, ports: dict[str, int]) -> None:
        self.path = path
        self.ports = ports
        self.output = path.with_suffix(".out")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> "subprocess.Popen[bytes]":
        if self.process is not None:
            self.process.wait(60)  # the one before, which was told to end
        command = [sys.executable, str(FAKE_PLATFORM), str(self.path), json.dumps(self.ports)]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
        return self.process

    def started(self, **environment: str) -> "Up":
        self.start(**environment)
        eventually(lambda: "Everything is up" in self.text or self.ended, "all is up", 60)
        assert not self.ended, self.text
        return self

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def runs(self) -> bool:
        return self.process is not None and not self.ended

    def ftgo(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "FTGO_STATE_DIR": str(self.path)}
        command = [sys.executable, "-m", "ftgo_local", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)

    def status(self) -> dict[str, Any]:
        done = self.ftgo("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pids(self) -> list[int]:
        state = StateDirectory(self.path).read()
        assert state is not None
        return [unit.pid for unit in state.units.values() if unit.pid]

    def end(self) -> None:
        """Nothing runs, and nothing is left."""
        if self.process is not None and not self.ended:
            self.process.terminate()
            self.process.wait(60)
        self.ftgo("reset", "--yes")
