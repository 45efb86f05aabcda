"""The brokers of a process: which there are, and how it follows when its file says that there are others."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from ftgo_messaging import transport_at
from ftgo_messaging.consumer.consumer import Consumer
from ftgo_messaging.outbox.moving import Moving, Readers, Route
from ftgo_messaging.runtime.loops import periodic
from ftgo_messaging.transports.port import Transport

from ftgo_service_kit.broker_file import Addresses, BadBrokerFile, kind_of, name_of, read_broker_file
from ftgo_service_kit.settings import ServiceSettings
from ftgo_service_kit.watched import Watched

log = structlog.get_logger("ftgo.service")

_LOOK_SECONDS = 0.5

Make = Callable[[Transport, str], Consumer]
"""Makes a consumer that reads a broker, which has this name among those of the file; an empty one if it is fixed."""


class Brokers:
    """Of a service: one that FTGO_BROKER_URL names, for good; or those of FTGO_BROKER_FILE, now and later.

    ``publisher`` is what the relay publishes with, whichever broker that is at a moment; ``moving`` its way to another
    one, if there may be another one. Consumers that ``read`` was not told of stay on the first broker."""

    def __init__(self, service: str, settings: ServiceSettings, readers: Readers) -> None:
        self._client = f"ftgo-{service}-relay"
        self._file = settings.broker_file
        self._makes: list[Make] = []
        self._consumers: dict[Consumer, str] = {}
        self._told = ""
        self.addresses = Addresses(settings.broker_url or "") if self._file is None else read_broker_file(self._file)
        self.transports = {url: transport_at(url) for url in self.addresses.all}
        self.moving: Moving | None = None
        self.publisher = self._sends = self.transport.publisher(self._client)
        if self._file is not None:
            if not readers:
                raise RuntimeError(f"service {service}: to follow a file of brokers it has to know all readers")
            self.publisher = self.moving = Moving(self._route(), readers)

    @property
    def transport(self) -> Transport:
        """Where is published at present."""
        return self.transports[self.addresses.send]

    def read(self, make: Make) -> list[Consumer]:
        """One more consumer, on each broker that is to be read."""
        self._makes.append(make)
        return [self._consumer(make, url) for url in self.addresses.all]

    def label(self, consumer: Consumer) -> str:
        """For people: a consumer has its name, and on a broker that is being left that broker's as well."""
        url = self._consumers.get(consumer, self.addresses.send)
        return consumer.name if url == self.addresses.send else f"{consumer.name}@{name_of(url)}"

    def describe(self, relays: bool) -> dict[str, Any]:
        """For /readyz. ``relays``: whether this process has a relay."""
        return {
            "sends": kind_of(self.addresses.send),
            "generation": self.addresses.generation,
            "reads": [kind_of(url) for url in self.addresses.all],
            "unmoved": self.moving.unmoved if relays and self.moving is not None else None,
        }

    async def follow(self, watched: Watched) -> None:
        """Look at the file twice a second, until cancelled. What cannot be followed is told, once, and the old content
        stays in force."""
        if self._file is not None:
            path = self._file
            await periodic("broker_file", lambda: self._look(path, watched), _LOOK_SECONDS)

    async def _look(self, path: Path, watched: Watched) -> None:
        try:
            found = await asyncio.to_thread(read_broker_file, path)
            if found != self.addresses and (found.generation or 0) <= (self.addresses.generation or 0):
                raise BadBrokerFile(f"{path} has changed, and its generation has not grown")
        except BadBrokerFile as bad:
            self._tell(str(bad))
            return
        self._told = ""
        if found != self.addresses:
            await self._go(found, watched)

    def _tell(self, why: str) -> None:
        if why != self._told:
            log.error("broker_file.not_followed", why=why, generation=self.addresses.generation)
        self._told = why

    async def _go(self, found: Addresses, watched: Watched) -> None:
        before, self.addresses = self.addresses, found
        self.transports |= {url: transport_at(url) for url in found.all if url not in self.transports}
        if found.send != before.send:
            self._sends = self.transport.publisher(self._client)
        if self.moving is not None:
            self.moving.go(self._route())
        log.info("broker_file.followed", **self.describe(False))
        if watched.reads:
            for url in [url for url in found.all if url not in before.all]:
                for make in self._makes:
                    await watched.add(self._consumer(make, url))
        gone = [url for url in self.transports if url not in found.all]
        await watched.remove([consumer for consumer, url in self._consumers.items() if url in gone])
        self._consumers = {c: url for c, url in self._consumers.items() if url not in gone}
        for url in gone:
            await self.transports.pop(url).close()

    def _consumer(self, make: Make, url: str) -> Consumer:
        consumer = make(self.transports[url], "" if self._file is None else name_of(url))
        self._consumers[consumer] = url
        return consumer

    def _route(self) -> Route:
        return Route(self._sends, self.addresses.generation, [self.transports[url] for url in self.addresses.read])

    async def close(self) -> None:
        await asyncio.gather(*(transport.close() for transport in self.transports.values()))
