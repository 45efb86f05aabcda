"""One child process with its log file: started, watched, stopped in order or killed."""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOG_LIMIT_BYTES = 20_000_000
LEAST_ROOM_BYTES = 16_384
"""With less than some blocks a disk is full: what a process says of it cannot be written either."""


def last_lines(log: Path, count: int = 15, position: int = 0) -> list[str]:
    """The last lines of a log from that position on, the oldest first; none when there is no such file."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(position, size - 64 * 1024))
        return file.read().decode(errors="replace").splitlines()[-count:]


def size_of(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


class Child:
    """A process in a session of its own: Ctrl-C reaches only the supervisor, which stops its children in order.

    Its output is appended to ``log``. A log above 20 MB is set aside as ``*.log.1`` at the next start.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._begin = 0

    def spawn(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], **user: Any) -> None:
        """Start the process; returns at once. ``user`` are subprocess's arguments for running as somebody else."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self._begin = size_of(self.log)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=env,
                start_new_session=True,
                umask=0o077,
                **user,
            )

    @property
    def pid(self) -> int | None:
        """Of the running process; None before the start and after the end."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def said(self) -> list[str]:
        """The last lines that it has written since it was started, not those of its predecessors; and why there may be
        none."""
        lines = last_lines(self.log, 50, self._begin)
        if self.log.exists() and shutil.disk_usage(self.log).free < LEAST_ROOM_BYTES:
            lines.append(f"{self.log}: {os.strerror(errno.ENOSPC)}")
        return lines

    @property
    def end(self) -> str:
        """How the last process ended, as the end of a sentence; empty while it runs."""
        code = self._process.poll() if self._process else None
        if code is None:
            return ""
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def stop(self, ask: signal.Signals = signal.SIGTERM, timeout: float = 15.0) -> None:
        """Ask it to end, and kill it after ``timeout`` seconds. Returns when it is gone."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(ask)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as in a crash. Returns when it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
