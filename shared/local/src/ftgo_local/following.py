"""Whether the running services follow FTGO_BROKER_FILE, by what their /readyz says."""

import asyncio
from typing import Any

import httpx

from ftgo_local.state import PlatformState


async def behind(client: httpx.AsyncClient, state: PlatformState, generation: int, left: str) -> list[str]:
    """For each service that is not there yet, why not. There: it follows the file of that generation, and no lane of
    its relay waits for the broker that is ``left``."""
    found = await asyncio.gather(*(_ask(client, state, service) for service in state.services))
    answers = dict(zip(state.services, found, strict=True))
    return [f"{service} {why}" for service, answer in answers.items() if (why := reason(answer, generation, left))]


async def _ask(client: httpx.AsyncClient, state: PlatformState, service: str) -> dict[str, Any] | str:
    """What it answers, or why it does not."""
    if state.units[service].status == "stopped":
        return f"is stopped (`ftgo start {service}`)"
    try:
        answer = (await client.get(f"http://127.0.0.1:{state.ports[service]}/readyz")).json()
    except (httpx.HTTPError, ValueError):
        return "does not answer"
    return answer if isinstance(answer, dict) else "does not answer"


def reason(answer: dict[str, Any] | str, generation: int, left: str) -> str:
    """Why that answer does not do; empty when it does."""
    if isinstance(answer, str):
        return answer
    broker = answer.get("broker")
    if broker is None:
        return "does not tell which broker it uses: was it started by this release?"
    if broker["generation"] < generation:
        return "has not followed yet"
    if unmoved := broker["unmoved"]:
        return f"has {unmoved} lanes that wait until {left} is read"
    return ""
