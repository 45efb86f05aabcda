"""python -m small_service [migrate | PART...]"""

import asyncio
import os
import sys

from fastapi import APIRouter, FastAPI, Request
from ftgo_messaging import Channel, DomainEvent, Kind, MessageHandlers, Operation, UnitOfWork, new_id
from ftgo_service_kit.app import create_app
from ftgo_service_kit.migrations import migrate
from ftgo_service_kit.service import Part, Service
from ftgo_service_kit.settings import ServiceSettings, read_settings
from pydantic_settings import SettingsConfigDict

NOTES = Channel("small.events", Kind.EVENT)
HANDLERS = MessageHandlers("small")
router = APIRouter()


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_SMALL_", extra="ignore")


@NOTES.carries("ftgo.small.Noted")
class Noted(DomainEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@HANDLERS.handle(Noted)
async def noted(_: Noted, __: UnitOfWork) -> None:
    """Taken note of: the library records that it was handled."""


async def _wait_for_the_end(service: Service, end: str) -> None:
    service.app.state.waiting = True
    while not service.stopping:  # noqa: ASYNC110 - a service has no event for its tests
        await asyncio.sleep(0.02)
    http = next((t for t in asyncio.all_tasks() if t.get_name() == "http"), None)
    if end == "http" and http is not None:
        await asyncio.wait([http])


@router.post("/notes", status_code=201)
async def note(request: Request, after: str | None = None) -> dict[str, str]:
    """Publishes an event: at once, after the "signal" to stop, or after "http" has ended."""

    async def use_case(uow: UnitOfWork) -> str:
        if after is not None:
            await _wait_for_the_end(request.app.state.service, after)
        return uow.publish(Noted(), subject=new_id(), version=1)

    return {"messageId": await request.app.state.group_commit.submit(Operation(use_case))}


@router.get("/waiting")
async def waiting(request: Request) -> bool:
    """Whether a request waits for the end."""
    return bool(request.app.state.waiting)


@router.post("/echo")
async def echo(request: Request) -> dict[str, str]:
    """What arrived as the body."""
    return {"body": (await request.body()).decode()}


@router.get("/large")
async def large() -> str:
    """More than a socket takes."""
    return "x" * 2_000_000


async def _run_beside(app: FastAPI) -> None:
    app.state.beside += 1
    if os.environ.get("FTGO_SMALL_FAIL"):
        raise ValueError("a part that fails")
    await asyncio.get_running_loop().create_future()


@router.get("/beside")
async def beside(request: Request) -> int:
    """How often the background part was started."""
    return int(request.app.state.beside)


def main() -> None:
    settings = read_settings(Settings)
    if sys.argv[1:] == ["migrate"]:
        migrate("small_service", settings)
        return
    service = Service("small", settings, {NOTES.name: ["small"]})
    service.read(HANDLERS, NOTES)
    app = create_app("Small", "For tests.")
    app.include_router(router)
    app.state.waiting, app.state.beside = False, 0
    service.background.append(lambda: _run_beside(app))
    service.attach(app)
    service.run(*(Part(part) for part in sys.argv[1:]))


if __name__ == "__main__":
    main()
