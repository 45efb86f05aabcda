"""The relay of a service, as its settings choose it."""

from typing import Any

from ftgo_messaging.outbox.log_tailing import LogTailing
from ftgo_messaging.outbox.moving import Moving
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.outbox.relay import Relay, RelayStatus, WakeUp
from ftgo_messaging.transports.port import Publisher
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_service_kit.settings import ServiceSettings


def make_relay(
    name: str,
    settings: ServiceSettings,
    engine: AsyncEngine,
    publisher: Publisher,
    wake_up: WakeUp,
    moving: Moving | None = None,
) -> Relay:
    """FTGO_RELAY names the kind; of FTGO_RELAY_SHARDS relays this is number FTGO_RELAY_SHARD."""
    index, of = settings.relay_shard, settings.relay_shards
    if settings.relay == "log-tailing":
        return LogTailing(
            engine,
            publisher,
            wake_up,
            service=f"ftgo_{name}",
            batch=settings.batch,
            index=index,
            of=of,
            moving=moving,
        )
    return PollingPublisher(engine, publisher, wake_up, batch=settings.batch, index=index, of=of, moving=moving)


def describe(status: RelayStatus) -> dict[str, Any]:
    """For /readyz. Times in seconds; ``lastRound`` since 1970."""
    return {
        "role": status.role,
        "shards": status.shards,
        "published": status.published,
        "lastRound": round(status.last_round, 3),
        "found": status.found,
        "oldestAge": round(status.oldest_age, 3),
        "stoppedKeys": status.stopped_keys,
    }
