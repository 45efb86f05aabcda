"""One process of a service: HTTP, consumers and relay, together or one of them, started and stopped in order."""

import asyncio
import gc
import signal
from collections.abc import Callable, Collection, Coroutine, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

import structlog
import uvloop
from fastapi import FastAPI
from ftgo_messaging import (
    Channel,
    ChannelConsumer,
    GroupCommit,
    MessageHandlers,
    Transactions,
    UnitOfWork,
)
from ftgo_messaging.consumer.consumer import Consumer
from ftgo_messaging.outbox.bound import OutboxBound
from ftgo_messaging.outbox.moving import NOBODY, Readers
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.outbox.table import SHARDS
from ftgo_messaging.outbox.wake_up import Listener, Notifier
from ftgo_messaging.runtime.errors import trace_of
from ftgo_messaging.transports.port import Transport
from ftgo_messaging.upkeep import retention
from ftgo_messaging.upkeep.unresolved import Unresolved
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_service_kit import health
from ftgo_service_kit.admin import admin_router
from ftgo_service_kit.app import create_health_app
from ftgo_service_kit.bearer import Bearer, read_public_key
from ftgo_service_kit.body_limit import LimitBody
from ftgo_service_kit.brokers import Brokers
from ftgo_service_kit.connections import Connections
from ftgo_service_kit.database import WRITES, Pools
from ftgo_service_kit.head import HeadAsGet
from ftgo_service_kit.hosts import AllowHosts, known_names
from ftgo_service_kit.http_server import HttpServer
from ftgo_service_kit.limit_requests import LimitRequests
from ftgo_service_kit.logging import configure_logging
from ftgo_service_kit.observed import ObservedPublisher
from ftgo_service_kit.relays import make_relay
from ftgo_service_kit.settings import ServiceSettings
from ftgo_service_kit.shared_reads import SharedReads
from ftgo_service_kit.stopping import within
from ftgo_service_kit.trace import Trace
from ftgo_service_kit.watched import Watched

log = structlog.get_logger("ftgo.service")

Running = asyncio.Task[None]


class Part(StrEnum):
    """What a process may run. Every process answers /livez, /readyz and /metrics; only API serves the REST routes."""

    API = "api"
    WORKER = "worker"
    RELAY = "relay"


ALL_PARTS = frozenset(Part)


class Service:
    """Holds what the parts of a process share. ``bootstrap.py`` of each service fills in consumers, background, app.

    ``readers`` are the consumers of every channel of the system: they decide when a broker that is being left has been
    read to its end. Needed with FTGO_BROKER_FILE."""

    def __init__(self, name: str, settings: ServiceSettings, readers: Readers = NOBODY) -> None:
        self.name = name
        self.settings = settings
        self.pools = Pools(name, settings)
        self.engine: AsyncEngine = self.pools.reads
        self.transactions = Transactions(self.pools.messages, name)
        self.writes = self.transactions.on(self.pools.writes)
        self.upkeep = self.transactions.on(self.pools.upkeep)
        self.database = SharedReads(lambda _: health.ask(self.pools.upkeep))
        self.outbox_bound = OutboxBound(self.pools.upkeep, settings.outbox_limit)
        self.group_commit = GroupCommit(
            self.writes,
            max_operations=min(settings.batch, 64),
            workers=WRITES,
            limit=settings.queue_limit,
            admit=self.outbox_bound.admit,
        )
        self.wake_up = WakeUp()
        self.brokers = Brokers(name, settings, readers)
        self.publisher = self.brokers.publisher
        self._observed = ObservedPublisher(self.publisher)
        self.relay = make_relay(name, settings, self.pools.relay, self._observed, self.wake_up, self.brokers.moving)
        self.notifier = Notifier(self.pools.upkeep)
        self.consumers: Sequence[Consumer] = ()
        self.dead_letters = Unresolved(self.pools.upkeep)
        # Loops that run until the service stops and may be cut off anywhere: reconciler, retention.
        self.background: list[Callable[[], Coroutine[Any, Any, None]]] = [
            lambda: retention.retain_forever(self.pools.upkeep, self.retention),
            self.dead_letters.watch,
        ]
        self.retention = [
            retention.processed_messages(timedelta(days=settings.processed_messages_days)),
            retention.dead_letters(timedelta(days=settings.dead_letters_days)),
        ]
        self.connections = Connections(settings.connections, settings.connections_per_address)
        self.app: FastAPI | None = None
        self.parts = ALL_PARTS
        self.stopping = False
        self.transactions.after_commit.append(self._ring)

    @property
    def relay_state(self) -> str:
        """How the last publishing ended: idle, ok, or what failed."""
        return self._observed.state

    def read(self, handlers: MessageHandlers, *channels: Channel) -> None:
        """Let these handlers read the channels, as one more consumer."""

        def make(transport: Transport, broker: str) -> ChannelConsumer:
            return ChannelConsumer(
                handlers.consumer,
                channels,
                handlers,
                self.transactions,
                transport,
                broker=broker,
                instance=self.settings.instance,
                max_records=self.settings.batch,
                patience=self.settings.patience,
            )

        self.consumers = [*self.consumers, *self.brokers.read(make)]

    def attach(self, app: FastAPI) -> None:
        """Give the routes what they need, as ``request.app.state``."""
        app.state.service = self
        app.state.group_commit = self.group_commit
        app.state.engine = self.engine
        # The last is the first that a request meets: what is refused by name, or not here yet, takes no place.
        app.add_middleware(LimitRequests, limit=self.settings.request_limit)
        app.add_middleware(LimitBody)
        app.add_middleware(AllowHosts, names=[*known_names(self.name), *self.settings.allowed_hosts.split()])
        app.add_middleware(HeadAsGet)
        app.add_middleware(Trace)
        if self.settings.admin_key_file is not None:
            key = read_public_key(self.settings.admin_key_file)
            app.include_router(admin_router(Bearer(key, self.settings.admin_issuer, f"ftgo-{self.name}")))
        self.app = app

    def run(self, *parts: Part) -> None:
        """Run these parts (all of them, when none is named) until SIGTERM or SIGINT, then return. Exit code 1 when a
        part ended by itself."""
        self._select(parts or ALL_PARTS)
        configure_logging(self.name, self.settings.log_format)
        # What is loaded by now stays: the collector need not walk through it again and again. And most of what a
        # request makes is gone before 700 objects more are there.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            asked_to_stop = runner.run(self.serve())
        if not asked_to_stop:
            raise SystemExit(1)

    def _select(self, parts: Collection[Part]) -> None:
        self.parts = frozenset(parts)
        if Part.WORKER not in self.parts:
            self.consumers = ()
            self.background.clear()
        if Part.API not in self.parts:
            self.attach(create_health_app(f"FTGO {self.name}: {', '.join(sorted(self.parts))}"))

    async def serve(self) -> bool:
        """Run until a signal (returns True) or until a part ends by itself (False). A second signal changes nothing."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, stop.set)
        server = self._http_server()
        self.group_commit.start()
        relay = [asyncio.create_task(self.relay.run(), name="relay")] if Part.RELAY in self.parts else []
        watched = Watched(self.consumers, Part.WORKER in self.parts)
        self.consumers = watched.all
        await watched.start()
        background = [asyncio.create_task(run(), name="background") for run in (*self.background, *self._hints())]
        if Part.API in self.parts:
            background.append(asyncio.create_task(self.outbox_bound.watch(), name="outbox bound"))
        background.append(asyncio.create_task(watched.run(), name="consumers"))
        if self.brokers.moving is not None:
            background.append(asyncio.create_task(self.brokers.follow(watched), name="brokers"))
            if relay:
                background.append(asyncio.create_task(self.brokers.moving.run(), name="moving"))
        http = asyncio.create_task(server.run_until_told(), name="http")
        log.info("service.started", port=self.settings.port)
        waiting = asyncio.create_task(stop.wait(), name="signal")
        parts = [http, *relay, *background, *self.group_commit.workers]
        await asyncio.wait([waiting, *parts], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await self._stop(server, http, relay, background, watched)
        return stop.is_set()

    async def _stop(
        self,
        server: HttpServer,
        http: Running,
        relay: Sequence[Running],
        background: Sequence[Running],
        watched: Watched,
    ) -> None:
        """From the outside in, so that nothing is cut off while it still brings work. At most 28 s in all."""
        self.stopping = True
        log.info("service.stopping")
        await server.stop_listening()
        server.should_exit = True  # waits 5 s for running requests, by its configuration
        for task in background:
            task.cancel()
        await asyncio.wait([http, *background], timeout=6)
        await watched.stop()
        await within(5, "group commit", self.group_commit.stop())
        for task in relay:
            self.relay.stop()
            await asyncio.wait([task], timeout=2)
            task.cancel()
            await within(3, "relay", self._publish_the_rest())
        await within(2, "publisher", self.publisher.close())
        await within(1, "brokers", self.brokers.close())
        await within(1, "pools", self.pools.close())
        for part in (http, *relay, *background, *self.group_commit.workers):
            if part.done() and not part.cancelled() and (error := part.exception()):
                log.error("service.part_failed", part=part.get_name(), error=str(error), exc_info=trace_of(error))
        log.info("service.stopped")

    async def _publish_the_rest(self) -> None:
        """What the last requests committed goes out now, not when a successor has started."""
        try:
            while await self.relay.run_once():
                pass
        finally:
            await self.relay.release()

    def _http_server(self) -> HttpServer:
        if self.app is None:
            raise RuntimeError(f"service {self.name}: attach() an app before serving")
        return HttpServer(self.app, self.settings.host, self.settings.port, self.connections)

    def _hints(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """The wake-up across processes. Log tailing needs none: the log comes by itself."""
        if self.settings.relay != "polling":
            return []
        listener = Listener(self.pools.upkeep, self.wake_up)
        return [self.notifier.run, listener.run] if Part.RELAY in self.parts else [self.notifier.run]

    def _ring(self, uow: UnitOfWork) -> None:
        if not uow.messages:
            return
        self.wake_up.ring()
        # One process that does everything sends no NOTIFY. One that stands by, or shares the outbox, does.
        if Part.RELAY not in self.parts or self.relay.status.shards != SHARDS:
            self.notifier.ring()
