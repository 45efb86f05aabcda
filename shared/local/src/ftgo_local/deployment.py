"""Waits for a deployment, as every job does that speaks to one: the seed, the tour, the journeys."""

from collections.abc import Mapping
from functools import partial

import httpx
from ftgo_messaging import TransientError
from ftgo_messaging.runtime.waiting import NotThere, wait_for
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import BrokerRefuses

from ftgo_local.brokers.kinds import shown
from ftgo_local.errors import PlatformError

_LATER = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})


_CURE = "Is it up, and is FTGO_BROKER_URL (or FTGO_KAFKA_BOOTSTRAP) its address?"


async def until_ready(client: httpx.AsyncClient, services: Mapping[str, str], broker: str | None = None) -> None:
    """Wait until every service, by its name and URL, is ready, and the broker can be reached, if a URL of one is given.

    Raises PlatformError at the deadline (FTGO_WAIT_SECONDS), and at once for an answer that no waiting changes."""
    try:
        for name, url in services.items():
            cure = f"Is it up (see its log), and is FTGO_{name.upper()}_URL its address?"
            ready = partial(_ready, client, url)
            await wait_for(f"{name} at {url}", ready, cure, passes=_passes, refusals=_REFUSALS)
        if broker is not None:
            what = f"the broker at {shown(broker)}"
            await wait_for(what, partial(_reach, broker), _CURE, refusals=(BrokerRefuses,))
    except NotThere as error:
        raise PlatformError(str(error)) from error


class _Refused(Exception):
    """An answer that is neither "ready" nor "not yet"."""


_REFUSALS = (_Refused, httpx.UnsupportedProtocol, httpx.InvalidURL)


async def _ready(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.get(f"{url}/readyz")
    said = f"GET /readyz was answered with {answer.status_code}: {answer.text[:300]}"
    if answer.status_code in _LATER:
        raise TransientError(said)
    if answer.status_code != httpx.codes.OK:
        raise _Refused(said)


async def _reach(broker: str) -> None:
    """Raises what the broker raises: TransientError while it is away."""
    transport = transport_at(broker)
    try:
        await transport.declare((), {})
    finally:
        await transport.close()


def _passes(error: Exception) -> bool:
    away = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return away or isinstance(error, TransientError | TimeoutError)
