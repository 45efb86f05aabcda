"""`ftgo up`: starts everything, keeps it running until told to stop, and stops it in order.

Children have sessions of their own and outlive a supervisor that is killed with SIGKILL; the next `ftgo up` or
`ftgo down` ends them, by pid and start.
"""

import asyncio
import os
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftgo_local import broker_file
from ftgo_local.broker_choice import Choice
from ftgo_local.broker_side import BrokerSide
from ftgo_local.broker_wishes import BrokerWishes
from ftgo_local.brokers.kinds import DEFAULT, kind_of
from ftgo_local.identity import Identity
from ftgo_local.orphans import end_orphans
from ftgo_local.platform import Platform
from ftgo_local.ports import taken_port
from ftgo_local.progress import Event, Progress
from ftgo_local.seed import Urls, seed
from ftgo_local.services import Service, ServiceSpec, service_environment, tails_the_log
from ftgo_local.state import PlatformState, StateDirectory
from ftgo_local.together import all_of
from ftgo_local.units import Units
from ftgo_local.unprivileged import USER, make_user, placed_elsewhere, services_as_root

if TYPE_CHECKING:
    from ftgo_messaging.messages.channel import Channel


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
        self._with_seed = with_seed
        self._platform = Platform(directory.path, ports=ports, broker=broker.own or DEFAULT)
        if broker_settings:
            self._platform.kafka.extra_settings = broker_settings
        self._stop_wanted = asyncio.Event()
        self._upkeep: list[asyncio.Task[None]] = []
        self._state = PlatformState(Identity.of(os.getpid()), ports=ports)
        self._units = Units(directory, self._state, progress)
        self._brokers = BrokerSide(
            directory, self._state, self._units, progress, broker, self._platform, channels, readers or {}
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
        self._units.save()
        self._upkeep.append(asyncio.create_task(self._units.keep_saved()))
        try:
            if await self._start_unless_stopped():
                await self._stop_wanted.wait()
        finally:
            await self._stop()

    def _ask_to_stop(self) -> None:
        if self._stop_wanted.is_set():
            self._units.kill()
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
        self._brokers.tell_services()
        await all_of([self._start_postgres(services), self._brokers.start()])
        await all_of(self._start_service(service) for service in services)
        details: dict[str, Any] = {"urls": {service.name: service.url for service in services}}
        if self._with_seed:
            with self._progress.step("Seed") as step:
                details["seed"] = await seed(Urls.local(self._ports), self._directory.seed)
                step.text = "3 consumers, 2 restaurants"
        self._state.phase = "ready"
        self._units.save()
        wishes = BrokerWishes(self._directory, self._state, self._brokers, self._units, self._progress)
        self._upkeep.append(asyncio.create_task(wishes.follow()))
        self._progress.tell(Event("ready", seconds=time.monotonic() - started, details=details))

    async def _start_postgres(self, services: list[Service]) -> None:
        """PostgreSQL, the databases and their schemas, while the broker is starting; adds the services to start."""
        postgres = self._platform.postgres
        with self._progress.step("PostgreSQL") as step:
            await self._units.launch(postgres)
            step.text = f"127.0.0.1:{postgres.port}"
        if place := placed_elsewhere(postgres.directory):
            self._progress.note(place)
        with self._progress.step("Databases") as step:
            await self._platform.create_services([spec.name for spec in self._specs], tailing=tails_the_log())
            step.text = "one per service, each with roles of its own"
        services += [self._service(spec) for spec in self._specs]
        with self._progress.step("Migrations") as step:
            await all_of(service.migrate(postgres.owner_dsn(service.name)) for service in services)
            step.text = "schemas are current"

    def _service(self, spec: ServiceSpec) -> Service:
        port, postgres = self._ports[spec.name], self._platform.postgres
        relay = postgres.relay_dsn(spec.name) if tails_the_log() else None
        url, file = self._state.broker_url, broker_file.place(self._directory)
        environment = service_environment(spec.name, port, postgres.service_dsn(spec.name), url, relay, file)
        if (kind := kind_of(url)) and kind.leases:  # killed, and started again, it has its lanes at once
            environment = {"FTGO_INSTANCE": "ftgo", **environment}
        return Service(spec, port, environment, self._directory.logs / f"{spec.name}.log", cwd=self._directory.path)

    async def _start_service(self, service: Service) -> None:
        with self._progress.step(service.name.capitalize()) as step:
            await self._units.launch(service, keep_running=False)
            await service.wait_until_ready()
            self._units.keep_running(service.name)
            step.text = service.url

    async def _stop(self) -> None:
        """Services first, so that they finish what they do with the broker and PostgreSQL there; then these."""
        self._state.phase = "stopping"
        self._units.save()
        for task in self._upkeep:
            task.cancel()
        await asyncio.gather(*self._upkeep, return_exceptions=True)
        await self._units.end_all(self._state.infrastructure)
        self._progress.tell(Event("stopped"))
