"""Waits for a deployment, as every job does that speaks to one: the seed, the tour, the journeys."""

from collections.abc import Mapping
from functools import partial

import httpx
from ftgo_messaging import TransientError
from ftgo_messaging.runtime.waiting import NotThere, wait_for
from ftgo_messaging.transports.kafka.reach import CURE, passes, reach

from ftgo_local.errors import PlatformError

_LATER = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})


async def until_ready(client: httpx.AsyncClient, services: Mapping[str, str], kafka: str | None = None) -> None:
    """Wait until every service, by its name and URL, is ready, and Kafka can be reached, if one is named.

    Raises PlatformError at the deadline (FTGO_WAIT_SECONDS), and at once for an answer that no waiting changes."""
    try:
        for name, url in services.items():
            cure = f"Is it up (see its log), and is FTGO_{name.upper()}_URL its address?"
            ready = partial(_ready, client, url)
            await wait_for(f"{name} at {url}", ready, cure, passes=_passes, refusals=_REFUSALS)
        if kafka is not None:
            await wait_for(f"Kafka at {kafka}", partial(reach, kafka), CURE, passes=passes)
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


def _passes(error: Exception) -> bool:
    away = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return away or isinstance(error, TransientError | TimeoutError)
