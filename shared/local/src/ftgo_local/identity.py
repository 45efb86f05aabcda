"""Who a process is, beyond doubt: a pid is used again by a stranger one day, pid and start together are not."""

from dataclasses import dataclass
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TICKS = 22 - 3
"""proc(5): field 22 of stat; what is split here begins with field 3, behind the name in parentheses."""


@dataclass(frozen=True)
class Identity:
    pid: int
    started: str = ""  # as an older release left it: of no process

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """Raises psutil.NoSuchProcess."""
        return cls(pid, _started(pid))

    def process(self) -> psutil.Process | None:
        """The living process, or None. A zombie is not alive."""
        try:
            process = psutil.Process(self.pid)
            same = _started(self.pid) == self.started
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _started(pid: int) -> str:
    """The boot, and the clock ticks from there to the start of the process; good for nothing but to be compared.

    No time of day: on Linux that is computed from the boot time, which moves whenever the clock is set. Where there is
    no /proc (macOS), the kernel notes the time of day once, at the start, and psutil gives that.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{_BOOT_ID.read_text().strip()} {fields[_START_TICKS].decode()}"
    except (FileNotFoundError, ProcessLookupError):
        return str(psutil.Process(pid).create_time())
