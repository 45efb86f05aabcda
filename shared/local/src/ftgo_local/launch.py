"""Running the supervisor: in this terminal, or in a session of its own that outlives the terminal."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftgo_local.broker_choice import Choice, choose
from ftgo_local.brokers.kinds import KINDS, NO_BROKER
from ftgo_local.console import to_file
from ftgo_local.environment import settle
from ftgo_local.errors import NotRunningError, PlatformError
from ftgo_local.orphans import end_orphans
from ftgo_local.progress import Listener, Progress, journal, read_journal
from ftgo_local.services import ServiceSpec, ftgo_services, ready_now
from ftgo_local.state import PlatformState, StateDirectory
from ftgo_local.supervisor import Supervisor

if TYPE_CHECKING:
    from ftgo_messaging.messages.channel import Channel

DOWN_SECONDS = 60.0


def supervise(
    directory: StateDirectory,
    ports: dict[str, int],
    *listeners: Listener,
    broker: Choice | None = None,
    specs: Sequence[ServiceSpec] | None = None,
    channels: Sequence["Channel"] | None = None,
    with_seed: bool = True,
    broker_settings: Mapping[str, str] | None = None,
) -> None:
    """Be the supervisor of this directory until SIGINT or SIGTERM. Raises PlatformError.

    What happens is told to the listeners, to the journal and to ``logs/ftgo.log``. ``broker_settings`` go over our own
    in Kafka's server.properties.
    """
    from ftgo_contracts.channels import ALL_CHANNELS, READERS

    os.umask(0o077)
    settle(os.environ)
    with directory.lock():
        progress = Progress(*listeners, journal(directory.journal), to_file(directory.logs / "ftgo.log"))
        services = ftgo_services() if specs is None else specs
        supervisor = Supervisor(
            directory,
            ports,
            services,
            progress,
            broker=broker or choose(None, directory, os.environ),
            channels=ALL_CHANNELS if channels is None else channels,
            readers=READERS,
            with_seed=with_seed,
            broker_settings=broker_settings,
        )
        asyncio.run(supervisor.run())


def supervise_in_background(
    directory: StateDirectory, offset: int, listener: Listener, broker: str | None = None
) -> None:
    """Start a supervisor in a session of its own, relay what it tells, and return when all is up. ``broker`` as for
    ``choose``.

    Raises PlatformError when a supervisor runs already, or when the new one gives up, which is told by then.
    """
    with directory.lock():
        directory.journal.unlink(missing_ok=True)
    log = directory.logs / "supervisor.err"
    with log.open("wb") as err:
        command = [sys.executable, "-m", "ftgo_local", "up", "--quiet", "--port-offset", str(offset)]
        command += ["--broker", broker] if broker else []
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=err, stderr=err, start_new_session=True)  # noqa: S603
    try:
        _relay(process, directory, listener, log)
    except KeyboardInterrupt:
        raise PlatformError(
            "It goes on starting in the background.", "`ftgo status` shows it, `ftgo down` stops it."
        ) from None


def _relay(process: "subprocess.Popen[bytes]", directory: StateDirectory, listener: Listener, log: Path) -> None:
    position = 0
    while True:
        ended = process.poll() is not None
        events, position = read_journal(directory.journal, position)
        for event in events:
            listener(event)
            if event.kind == "ready":
                return
        if ended:
            error = PlatformError("ftgo up has ended before all was up.", "", log)
            error.told = any(event.kind == "failed" for event in read_journal(directory.journal, 0)[0])
            raise error
        time.sleep(0.1)


def down(directory: StateDirectory, progress: Progress) -> bool:
    """Stop what runs, wherever it was started, and wait for its end. False when nothing ran.

    Raises PlatformError when the supervisor does not end in a minute.
    """
    state = directory.read()
    if state is None or not directory.path.exists():
        return False
    if directory.is_locked() and (supervisor := state.supervisor.process()):
        supervisor.terminate()
        deadline = time.monotonic() + DOWN_SECONDS
        while directory.is_locked():
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"ftgo up (pid {supervisor.pid}) did not end within {DOWN_SECONDS:.0f} s.",
                    f"`kill -9 {supervisor.pid}`, then `ftgo down` again ends what it leaves behind.",
                )
            time.sleep(0.1)
        return True
    with directory.lock():
        return end_orphans(directory, progress)


def change(directory: StateDirectory, name: str, *, run: bool, again: bool = False, timeout: float = 90.0) -> str:
    """Ask the running supervisor to stop, start or restart a unit, wait until it has, and say so in a sentence.

    Raises NotRunningError without a supervisor, PlatformError when the unit does not follow in time.
    """
    state = directory.read()
    if state is None or not directory.is_locked():
        raise NotRunningError("ftgo is not up.", "`ftgo up` starts it.")
    if name not in state.units:
        raise _not_here(state, name)
    wanted = directory.want(name, run=run, again=again)
    deadline = time.monotonic() + timeout
    while directory.is_locked():
        state = directory.read()
        unit = state.units.get(name) if state else None
        if not state or not unit:
            break
        if not run and unit.status == "stopped":
            return f"{name} is stopped, and stays so until `ftgo start {name}`."
        if run and unit.status == "running" and unit.generation == wanted.generation:
            if name in state.infrastructure:
                return f"{name} runs with pid {unit.pid}."
            if ready_now(f"http://127.0.0.1:{state.ports[name]}"):
                return f"{name} is ready with pid {unit.pid}."
            missing = [other for other in state.infrastructure if state.units[other].status == "stopped"]
            if missing:
                return f"{name} runs with pid {unit.pid}, but is not ready while {' and '.join(missing)} is stopped."
        if time.monotonic() > deadline:
            raise PlatformError(
                f"{name} is {unit.status}, but not what was asked for after {timeout:.0f} s.",
                f"See `ftgo logs {name}`.",
            )
        time.sleep(0.1)
    raise NotRunningError("ftgo has ended meanwhile.", "`ftgo logs ftgo` tells why.")


def _not_here(state: PlatformState, name: str) -> PlatformError:
    """Why there is no such unit."""
    if name in KINDS and state.broker in KINDS and not KINDS[state.broker].runs:
        return PlatformError(NO_BROKER, "`ftgo stop SERVICE` stops one of these.")
    if name in KINDS and name not in (state.broker, state.beside):
        return PlatformError(f"The broker here is {state.broker}, not {name}.", "`ftgo status` shows what runs.")
    if name == state.broker and state.phase == "ready":
        return PlatformError(f"{name} runs elsewhere: FTGO_BROKER_URL named it.", "Stop and start it where it runs.")
    return PlatformError(f"{name} has not been started yet.", "Wait until `ftgo up` is through.")


def kill_unit(directory: StateDirectory, name: str) -> str:
    """SIGKILL to a unit, as in a crash; the supervisor starts it again. Returns a sentence. Raises NotRunningError."""
    state = directory.read()
    if state is None or not directory.is_locked():
        raise NotRunningError("ftgo is not up.", "`ftgo up` starts it.")
    identity = state.units[name].identity if name in state.units else None
    process = identity.process() if identity else None
    if process is None:
        raise NotRunningError(f"{name} does not run here just now.", "`ftgo status` shows what does.")
    process.kill()
    return f"{name} (pid {process.pid}) is killed. It is started again at once."
