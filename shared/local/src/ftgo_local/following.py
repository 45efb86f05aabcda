"""Whether the running services follow FTGO_BROKER_FILE, by what their /readyz says."""

import asyncio
from typing import Any

import httpx

from ftgo_local.state import PlatformState


async def behind(client: httpx.AsyncClient, state: PlatformState, generation: int, left: str) -> list[str]:
    """Which services are not there yet, and why: those with the same reason together. There: a service follows the file
    of that generation, and no lane of its relay waits for the broker that is ``left``."""
    found = await asyncio.gather(*(_ask(client, state, service) for service in state.services))
    reasons: dict[str, list[str]] = {}
    for service, answer in zip(state.services, found, strict=True):
        if why := reason(answer, generation, left):
            reasons.setdefault(why, []).append(service)
    return [f"{', '.join(services)}: {why}" for why, services in reasons.items()]


async def _ask(client: httpx.AsyncClient, state: PlatformState, service: str) -> dict[str, Any] | str:
    """What it answers, or why it does not."""
    if state.units[service].status == "stopped":
        return f"stopped (`ftgo start {service}`)"
    try:
        answer = (await client.get(f"http://127.0.0.1:{state.ports[service]}/readyz")).json()
    except (httpx.HTTPError, ValueError):
        return "no answer"
    return answer if isinstance(answer, dict) else "no answer"


def reason(answer: dict[str, Any] | str, generation: int, left: str) -> str:
    """Why that answer does not do; empty when it does."""
    if isinstance(answer, str):
        return answer
    broker = answer.get("broker")
    if broker is None:
        return "not said which broker is used (by a service of an earlier release, perhaps)"
    if broker["generation"] < generation:
        return "not followed yet"
    if unmoved := broker["unmoved"]:
        return f"{unmoved} lanes wait until {left} is read"
    return ""
