"""Processes that a killed supervisor has left behind: found by pid and start on disk, and ended."""

import signal
import time
from contextlib import suppress

from ftgo_local.identity import Identity
from ftgo_local.progress import Progress
from ftgo_local.state import POSTGRES, StateDirectory

PATIENCE_SECONDS = 20.0


def end_orphans(directory: StateDirectory, progress: Progress) -> bool:
    """End what an earlier supervisor of this directory started and did not stop, services first, and say so.

    The caller holds the directory's lock: that supervisor is gone. A pid that belongs to a stranger by now has another
    start and is left alone. False when there was nothing to end.
    """
    state = directory.read()
    if state is None:
        return False
    found = False
    for names in (state.services, *([name] for name in state.infrastructure)):
        orphans: list[Identity] = []
        for name in names:
            identity = state.units[name].identity
            if identity and (process := identity.process()):
                progress.note(f"{name} (pid {process.pid}) was left behind by a killed ftgo up: it is stopped.")
                # PostgreSQL's word for "now, and orderly" is SIGINT; on SIGTERM it would wait for its clients to leave.
                process.send_signal(signal.SIGINT if name == POSTGRES else signal.SIGTERM)
                orphans.append(identity)
        found = found or bool(orphans)
        _wait_for_end(orphans)
        _end([helper for name in names for helper in state.units[name].helpers])
    for unit in state.units.values():
        unit.pid = None
    with suppress(OSError):  # on a full disk: what is named there has ended, and is found so
        directory.write(state)
    return found


def _end(helpers: list[Identity]) -> None:
    """Of units that have ended."""
    for helper in helpers:
        if process := helper.process():
            process.terminate()
    _wait_for_end(helpers)


def _wait_for_end(orphans: list[Identity]) -> None:
    """Wait, then kill. A zombie has ended: in a container nobody may ever collect its exit code."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alive := [process for orphan in orphans if (process := orphan.process())]:
        if time.monotonic() > deadline:
            for process in alive:
                process.kill()
        time.sleep(0.05)
