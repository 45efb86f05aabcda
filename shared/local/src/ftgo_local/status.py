"""What runs now: the supervisor's notes, checked against the process table and each service's /readyz."""

import asyncio
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import httpx

from ftgo_local.brokers.kinds import kind_of
from ftgo_local.platform import Platform
from ftgo_local.state import POSTGRES, PlatformState, StateDirectory


def snapshot(directory: StateDirectory) -> dict[str, Any] | None:
    """The document of ``ftgo status --json``; None when no supervisor runs.

    It holds the passwords of the service roles, in their DSNs, and the broker's: for the machine's owner, not for logs.
    """
    state = directory.read()
    if state is None or not directory.is_locked() or state.supervisor.process() is None:
        return None
    postgres = Platform(directory.path, ports=state.ports).postgres
    names = state.services
    urls = {name: f"http://127.0.0.1:{state.ports[name]}" for name in names}
    answers = asyncio.run(_readiness(urls))
    return {
        "phase": state.phase,
        "supervisor": {"pid": state.supervisor.pid},
        "services": {name: {"url": urls[name], **_unit(state, name), **answers[name]} for name in names},
        "postgres": {**_unit(state, POSTGRES), "dsns": {name: postgres.service_dsn(name) for name in names}},
        "broker": state.broker,
        state.broker: _broker(state, state.broker, state.broker_url),
        **({state.beside: _broker(state, state.beside, state.beside_url)} if state.beside else {}),
        "beside": state.beside or None,
        "move": asdict(state.move) if state.move else None,
    }


def _broker(state: PlatformState, name: str, address: str) -> dict[str, Any]:
    """Under its own name in the document, as the other units are. ``bootstrap``: only of Kafka."""
    url = urlsplit(address)
    bootstrap = {"bootstrap": url.netloc} if url.scheme == "kafka" else {}
    unit = _unit(state, name)
    if (kind := kind_of(address)) and not kind.runs:
        unit["status"] = "no broker"
    elif state.phase == "ready" and name not in state.units:
        unit["status"] = "elsewhere"
    return {**unit, "url": address, **bootstrap}


def _unit(state: PlatformState, name: str) -> dict[str, Any]:
    unit = state.units.get(name)
    if unit is None:
        return {"pid": None, "log": "", "status": "not started", "restarts": 0}
    alive = unit.identity is not None and unit.identity.process() is not None
    status = unit.status if alive or unit.status == "stopped" else "starting again"
    return {"pid": unit.pid if alive else None, "log": unit.log, "status": status, "restarts": unit.restarts}


async def _readiness(urls: dict[str, str]) -> dict[str, dict[str, Any]]:
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        answers = await asyncio.gather(*(_ask(client, url) for url in urls.values()))
    return dict(zip(urls, answers, strict=True))


async def _ask(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Whether it is ready, and the dead letters and parked keys of its consumers; none when it does not say."""
    try:
        answer = await client.get(f"{url}/readyz")
        letters = answer.json().get("deadLetters", {})
    except httpx.HTTPError:
        return {"ready": False, "deadLetters": {}}
    except ValueError:
        letters = {}
    return {"ready": answer.status_code == httpx.codes.OK, "deadLetters": letters}
