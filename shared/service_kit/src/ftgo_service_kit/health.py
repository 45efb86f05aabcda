"""Liveness, readiness, metrics: the three questions that a platform asks a process."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_service_kit.relays import describe

router = APIRouter(tags=["operation"])

_PATIENCE_SECONDS = 3
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process runs. Depends on nothing else: a broker's outage must not restart services."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not ready"}})
async def readyz(request: Request) -> JSONResponse:
    """Whether the database answers and all consumers read. REST works without a broker: the relay is only reported, and
    so are dead letters, with the number of keys that wait behind them."""
    service = request.app.state.service
    database = await _database(service)
    consumers = {service.brokers.label(c): "ok" if c.progress_ok else "waiting" for c in service.consumers}
    ready = not service.stopping and database == "ok" and set(consumers.values()) <= {"ok"}
    parts: dict[str, Any] = {"database": database, "consumers": consumers, "relay": service.relay_state}
    parts["broker"] = service.brokers.describe("relay" in service.parts)
    parts["http"] = service.connections.describe()
    if "worker" in service.parts:
        parts["deadLetters"] = service.dead_letters.counts
    if "relay" in service.parts:
        parts["relayStatus"] = describe(service.relay.status)
    return JSONResponse({"ready": ready, "stopping": service.stopping, **parts}, 200 if ready else 503)


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def ask(engine: AsyncEngine) -> dict[None, str]:
    """What ``Service.database`` shares among all probes of a moment: they come from anybody, and cost one statement."""
    async with asyncio.timeout(_PATIENCE_SECONDS), engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return {None: "ok"}


async def _database(service: Any) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return str(await service.database.ask(None))
    except Exception as error:
        return type(error).__name__
