import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ftgo_local.identity import Identity


def test_a_pid_that_is_used_again_is_somebody_else() -> None:
    me = Identity.of(os.getpid())
    assert me.process() is not None
    boot, ticks = me.started.rsplit(" ", 1)
    assert Identity(me.pid, f"{boot} {int(ticks) - 1}").process() is None
    assert Identity(me.pid, f"another-boot {ticks}").process() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="elsewhere the kernel keeps the start itself")
def test_a_step_of_the_clock_makes_nobody_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day at which a process started is computed from that of the boot, which moves with the clock."""
    me, created = Identity.of(os.getpid()), psutil.Process().create_time()
    stepped = psutil.boot_time() + 3
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: stepped)
    assert psutil.Process().create_time() == created + 3
    assert me.process() is not None
    assert Identity.of(os.getpid()) == me


def test_a_process_that_has_ended_is_not_alive_not_even_as_a_zombie() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = Identity.of(process.pid)
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while identity.process() is not None:
            assert time.monotonic() < deadline
        process.wait()
    assert identity.process() is None


def test_a_name_with_blanks_and_parentheses_hides_nothing() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b') 1 2 (', 0, 0, 0); print('named', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = Identity.of(process.pid)
        assert process.stdout is not None
        process.stdout.readline()
        assert Identity.of(process.pid) == before
        process.kill()
