"""python -m trip_service: HTTP, saga, participant, relay and reconciler in one process, to be made to fail."""

from fastapi import APIRouter, Request
from ftgo_messaging import Operation
from ftgo_messaging.outbox.polling import PollingPublisher
from ftgo_messaging.sagas.recovery import reconcile_forever
from ftgo_service_kit.app import create_app
from ftgo_service_kit.service import Service
from ftgo_service_kit.settings import ServiceSettings, read_settings
from pydantic_settings import SettingsConfigDict

from trip_service.trips import CASE, COMMANDS, ORCHESTRATOR, PARTICIPANT, REPLIES, TRIPS, Success, begin

router = APIRouter()


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_TRIP_", extra="ignore")


@router.put("/trips/{trip_id}")
async def put_trip(request: Request, trip_id: str) -> dict[str, str]:
    operation = Operation(lambda uow: begin(trip_id, uow), (lambda _: [(TRIPS, trip_id)],))
    return {"state": await request.app.state.group_commit.submit(operation)}


def main() -> None:
    settings = read_settings(Settings)
    service = Service(CASE, settings)
    # A relay that dies keeps its lease for its time; here not for long.
    service.relay = PollingPublisher(
        service.pools.relay, service.publisher, service.wake_up, batch=settings.batch, lease_seconds=2.0
    )
    service.read(PARTICIPANT, COMMANDS)
    service.read(ORCHESTRATOR.handlers(f"{CASE}.sagas", [Success]), REPLIES)
    service.background.append(lambda: reconcile_forever(ORCHESTRATOR, service.upkeep, every=0.1))
    app = create_app("Trips", "For tests.")
    app.include_router(router)
    service.attach(app)
    service.run()


if __name__ == "__main__":
    main()
