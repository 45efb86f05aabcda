"""One process of a service: HTTP, consumers and relay together, started and stopped in order."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from ftgo_messaging.kafka.publisher import KafkaPublisher
from ftgo_messaging.kafka.subscriber import ChannelConsumer
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.transactions import GroupCommit, Transactions
from ftgo_messaging.unit_of_work import UnitOfWork
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_service_kit.database import make_engine
from ftgo_service_kit.logging import configure_logging
from ftgo_service_kit.settings import ServiceSettings

log = structlog.get_logger("ftgo.service")


class Service:
    """Holds what the parts of a process share. ``bootstrap.py`` of each service fills in consumers and app."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self.settings = settings
        self.engine: AsyncEngine = make_engine(settings, f"ftgo-{name}")
        self.transactions = Transactions(self.engine, name)
        self.group_commit = GroupCommit(self.transactions, limit=settings.queue_limit)
        self.wake_up = WakeUp()
        self.publisher = KafkaPublisher(settings.kafka_bootstrap, f"ftgo-{name}-relay")
        self.relay = PollingPublisher(self.engine, self.publisher, self.wake_up, batch=settings.batch)
        self.consumers: Sequence[ChannelConsumer] = ()
        self.app: FastAPI | None = None
        self.stopping = False
        self.transactions.after_commit.append(self._ring)

    def _ring(self, uow: UnitOfWork) -> None:
        if uow.messages:
            self.wake_up.ring()

    def attach(self, app: FastAPI) -> None:
        app.state.service = self
        app.state.group_commit = self.group_commit
        app.state.engine = self.engine
        self.app = app

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT. Then: readiness false, no new requests, consumers finish their batch, the
        outbox is published once more, connections are closed. Everything has a time limit."""
        assert self.app is not None  # noqa: S101
        server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                host=self.settings.host,
                port=self.settings.port,
                access_log=False,
                log_config=None,
                lifespan="off",
                loop="none",
                http="httptools",
                ws="none",
                timeout_graceful_shutdown=5,
                server_header=False,
            )
        )
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, stop.set)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self.group_commit.start()
        relay = asyncio.create_task(self.relay.run(), name="relay")
        for consumer in self.consumers:
            await consumer.start()
        http = asyncio.create_task(server.serve(), name="http")
        log.info("service.started", port=self.settings.port)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting, http, relay], return_when=asyncio.FIRST_COMPLETED)
        self.stopping = True
        log.info("service.stopping")
        server.should_exit = True
        await asyncio.gather(http, return_exceptions=True)
        for consumer in self.consumers:
            await self._within(8, consumer.stop())
        await self._within(5, self.group_commit.stop())
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
        await self._within(3, self.publisher.close())
        await self.engine.dispose()
        log.info("service.stopped")

    async def _within(self, seconds: float, part: object) -> None:
        try:
            await asyncio.wait_for(part, seconds)  # type: ignore[arg-type]
        except Exception as error:
            # Nothing is lost: what was not finished is in the outbox or comes again from Kafka.
            log.warning("service.part_not_stopped", error=repr(error))

    def run(self) -> None:
        configure_logging(self.name, self.settings.log_format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self.serve())
