"""`ftgo up`: starts everything, keeps it running until told to stop, and stops it in order.

Children have sessions of their own and outlive a supervisor that is killed with SIGKILL; the next `ftgo up` or
`ftgo down` ends them, by pid and start.
"""

import asyncio
import os
import signal
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftgo_local.broker_choice import VARIABLE, Choice, changed, remember
from ftgo_local.brokers.kinds import DEFAULT, KINDS, Kind, kind_of, shown
from ftgo_local.identity import Identity
from ftgo_local.keeper import Keeper, Unit
from ftgo_local.orphans import end_orphans
from ftgo_local.platform import Platform
from ftgo_local.ports import taken_port
from ftgo_local.progress import Event, Progress
from ftgo_local.seed import Urls, seed
from ftgo_local.services import Service, ServiceSpec, service_environment, tails_the_log
from ftgo_local.state import PlatformState, StateDirectory
from ftgo_local.unprivileged import USER, make_user, services_as_root

if TYPE_CHECKING:
    from ftgo_messaging.messages.channel import Channel

SAVE_SECONDS = 1.0


class Supervisor:
    """One run of the platform, from its first process to the stop of its last."""

    def __init__(
        self,
        directory: StateDirectory,
        ports: dict[str, int],
        specs: Sequence[ServiceSpec],
        progress: Progress,
        *,
        broker: Choice = Choice(DEFAULT),  # noqa: B008 - never changed
        channels: Sequence["Channel"] = (),
        readers: Mapping[str, Collection[str]] | None = None,
        with_seed: bool = True,
        broker_settings: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._ports = ports
        self._specs = specs
        self._progress = progress
        self._choice = broker
        self._channels = channels
        self._readers = readers or {}
        self._with_seed = with_seed
        self._platform = Platform(directory.path, ports=ports, broker=broker.own or DEFAULT)
        if broker_settings:
            self._platform.kafka.extra_settings = broker_settings
        self._keepers: list[Keeper] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._stop_wanted = asyncio.Event()
        self._unsaved = False
        self._state = PlatformState(
            Identity.of(os.getpid()), ports=ports, broker=broker.name, broker_url=self._broker_url
        )

    async def run(self) -> None:
        """Start, supervise until SIGINT or SIGTERM, stop in order. A second signal kills what is still running.

        The caller holds the lock of the directory. Raises PlatformError, which the listeners have heard of, when
        something does not start; all that ran is stopped by then.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._ask_to_stop)
        if make_user():
            self._progress.note(f"There is a new system user, {USER}: what root starts runs as that user.")
        await asyncio.to_thread(end_orphans, self._directory, self._progress)
        if error := taken_port(self._ports):
            self._progress.fail("Ports", error)
            raise error
        self._directory.want_everything()
        self._save()
        self._keeping.append(asyncio.create_task(self._keep_saved()))
        try:
            if await self._start_unless_stopped():
                await self._stop_wanted.wait()
        finally:
            await self._stop()

    def _ask_to_stop(self) -> None:
        if self._stop_wanted.is_set():
            for keeper in self._keepers:
                keeper.unit.kill()
        self._stop_wanted.set()

    async def _start_unless_stopped(self) -> bool:
        """False when the user wanted the stop before all was up."""
        start = asyncio.create_task(self._start())
        stop = asyncio.create_task(self._stop_wanted.wait())
        try:
            await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                return False
            start.result()
            return True
        finally:
            start.cancel()
            stop.cancel()
            await asyncio.wait({start, stop})

    async def _start(self) -> None:
        started = time.monotonic()
        services: list[Service] = []
        if as_root := services_as_root():
            self._progress.note(as_root)
        await _all([self._start_postgres(services), self._start_broker()])
        await _all(self._start_service(service) for service in services)
        details: dict[str, Any] = {"urls": {service.name: service.url for service in services}}
        if self._with_seed:
            with self._progress.step("Seed") as step:
                details["seed"] = await seed(Urls.local(self._ports), self._directory.seed)
                step.text = "3 consumers, 2 restaurants"
        self._state.phase = "ready"
        self._save()
        self._progress.tell(Event("ready", seconds=time.monotonic() - started, details=details))

    async def _start_postgres(self, services: list[Service]) -> None:
        """PostgreSQL, the databases and their schemas, while the broker is starting; adds the services to start."""
        postgres = self._platform.postgres
        with self._progress.step("PostgreSQL") as step:
            await self._launch(postgres)
            step.text = f"127.0.0.1:{postgres.port}"
        self._tell_place(postgres.directory)
        with self._progress.step("Databases") as step:
            await self._platform.create_services([spec.name for spec in self._specs], tailing=tails_the_log())
            step.text = "one per service, each with roles of its own"
        services += [self._service(spec) for spec in self._specs]
        with self._progress.step("Migrations") as step:
            await _all(service.migrate(postgres.owner_dsn(service.name)) for service in services)
            step.text = "schemas are current"

    @property
    def _broker_url(self) -> str:
        return self._choice.url or self._platform.broker.url

    async def _start_broker(self) -> None:
        """Ours, or look for the one that runs elsewhere; then the channels that are missing there."""
        if self._choice.own:
            await self._start_own_broker(KINDS[self._choice.own])
        if self._channels:
            from ftgo_local.channels import declare

            with self._progress.step("Channels") as step:
                cure = "The log tells more." if self._choice.own else f"Is it up, and is {VARIABLE} its address?"
                made = await declare(self._broker_url, self._channels, self._readers, cure)
                step.text = f"{made} made at {self._choice}, {len(self._channels) - made} were there"
        if note := changed(self._choice, self._directory):
            self._progress.note(note)
        with suppress(OSError):  # a full disk: then the next start does not know of it
            remember(self._choice, self._directory)

    async def _start_own_broker(self, kind: Kind) -> None:
        broker = self._platform.broker
        if not kind.runs:
            with self._progress.step("Registry") as step:
                await broker.start()
                step.text = f"no broker: the services find each other in {shown(broker.url)}"
            return
        if kind.preparation:
            with self._progress.step(kind.preparation) as step:
                await broker.prepare()
                step.text = "verified"
        with self._progress.step(kind.title) as step:
            await self._launch(broker)
            step.text = f"127.0.0.1:{broker.port}"
        self._tell_place(broker.directory)

    def _tell_place(self, directory: Path) -> None:
        if directory.is_symlink():
            self._progress.note(
                f"The user {USER} cannot enter {directory.parent}: its data are in {directory.resolve()}."
            )

    def _service(self, spec: ServiceSpec) -> Service:
        port, postgres = self._ports[spec.name], self._platform.postgres
        relay = postgres.relay_dsn(spec.name) if tails_the_log() else None
        environment = service_environment(spec.name, port, postgres.service_dsn(spec.name), self._broker_url, relay)
        if (kind := kind_of(self._broker_url)) and kind.leases:
            environment = {
                "FTGO_INSTANCE": "ftgo",
                **environment,
            }  # killed, and started again, it has its lanes at once
        return Service(spec, port, environment, self._directory.logs / f"{spec.name}.log", cwd=self._directory.path)

    async def _start_service(self, service: Service) -> None:
        with self._progress.step(service.name.capitalize()) as step:
            keeper = await self._launch(service, keep_running=False)
            await service.wait_until_ready()
            self._keep_running(keeper)
            step.text = service.url

    async def _launch(self, unit: Unit, *, keep_running: bool = True) -> Keeper:
        keeper = Keeper(unit, self._directory, self._progress, self._save)
        self._keepers.append(keeper)
        self._state.units[unit.name] = keeper.state
        await keeper.start()
        if keep_running:
            self._keep_running(keeper)
        return keeper

    def _keep_running(self, keeper: Keeper) -> None:
        self._keeping.append(asyncio.create_task(keeper.keep_running()))

    async def _stop(self) -> None:
        """Services first, so that they finish what they do with the broker and PostgreSQL there; then these."""
        self._state.phase = "stopping"
        self._save()
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        infrastructure: list[Unit] = [self._platform.broker, self._platform.postgres]
        services = [keeper for keeper in self._keepers if keeper.unit not in infrastructure]
        order = [("Stop services", services)]
        order += [(f"Stop {u.name}", [k for k in self._keepers if k.unit is u]) for u in infrastructure]
        for name, keepers in order:
            if any(keeper.unit.pid for keeper in keepers):
                with self._progress.step(name):
                    await asyncio.gather(*(asyncio.to_thread(keeper.unit.stop) for keeper in keepers))
            for keeper in keepers:
                keeper.record("stopped")
        self._progress.tell(Event("stopped"))

    def _save(self) -> None:
        """Put the state on disk. A disk that takes nothing is told of once, and ends nothing."""
        try:
            self._directory.write(self._state)
        except OSError as error:
            if not self._unsaved:
                self._progress.note(f"The state cannot be written ({error}). Everything goes on; it is tried again.")
            self._unsaved = True
        else:
            if self._unsaved:
                self._progress.note("The state is written again.")
            self._unsaved = False

    async def _keep_saved(self) -> None:
        """Write the state that could not be written, or that somebody has damaged or deleted."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if not self._directory.is_as_written():
                self._save()


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at the same time; when one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in work:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
