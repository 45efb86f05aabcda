"""The trips: a saga with a command before and one after its pivot, and the participant that carries them out."""

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import msgspec
from ftgo_messaging import (
    Aggregates,
    Channel,
    Command,
    Kind,
    MessageHandlers,
    Orchestrator,
    Saga,
    SagaStep,
    StepKind,
    Success,
    UnitOfWork,
    messaging_tables,
)
from ftgo_messaging.sagas.instance import saga_instances, saga_instances_table
from sqlalchemy import Column, MetaData, Table, Text, Uuid

CASE = os.environ.get("FTGO_TRIP_CASE", "trip")
"""Names the topics and the groups: many of these services share a Kafka."""

METADATA = MetaData()
messaging_tables(METADATA)
INSTANCES = saga_instances(saga_instances_table(METADATA))
trips = Table("trips", METADATA, Column("id", Uuid(as_uuid=False), primary_key=True), Column("state", Text))
effects = Table("effects", METADATA, Column("trip", Uuid(as_uuid=False)), Column("command", Text))

COMMANDS = Channel(f"{CASE}.commands", Kind.COMMAND, key=lambda c: c.trip)
REPLIES = Channel(f"{CASE}.replies", Kind.REPLY)


@dataclass(frozen=True, slots=True)
class Trip:
    id: str
    state: str


TRIPS = Aggregates(
    trips, "id", lambda row: Trip(str(row["id"]), row["state"]), lambda t: {"id": t.id, "state": t.state}
)


@COMMANDS.carries("trips.Book", replies_to=(REPLIES,))
class Book(Command[Success], frozen=True, kw_only=True):
    trip: str


@COMMANDS.carries("trips.Pay", replies_to=(REPLIES,))
class Pay(Command[Success], frozen=True, kw_only=True):
    trip: str


class TripData(msgspec.Struct, frozen=True, kw_only=True):
    trip: str


async def _done(data: TripData, uow: UnitOfWork) -> None:
    trip = await uow.find(TRIPS, data.trip)
    assert trip is not None
    uow.save(TRIPS, replace(trip, state="DONE"))


SAGA = Saga[Any](
    type=f"{CASE}.saga",
    version=1,
    data=TripData,
    reply_channel=REPLIES,
    needs=lambda d: [(TRIPS, d.trip)],
    steps=[
        SagaStep(name="book", command=lambda d: Book(trip=d.trip)),
        SagaStep(name="pay", kind=StepKind.PIVOT, command=lambda d: Pay(trip=d.trip)),
        SagaStep(name="done", kind=StepKind.RETRIABLE, local=_done),
    ],
    # Overdue at once: whenever the reconciler passes by, every saga under way is reminded.
    patience=timedelta(0),
    reminders=10**6,
)
ORCHESTRATOR = Orchestrator(INSTANCES, [SAGA])
PARTICIPANT = MessageHandlers(f"{CASE}.participant")


@PARTICIPANT.handle(Book)
@PARTICIPANT.handle(Pay)
async def carry_out(command: Book | Pay, uow: UnitOfWork) -> Success:
    uow.append(effects, {"trip": command.trip, "command": type(command).__name__})
    return Success()


async def begin(trip_id: str, uow: UnitOfWork) -> str:
    """The same id begins one trip, however often it is asked for."""
    trip = await uow.find(TRIPS, trip_id)
    if trip is None:
        trip = Trip(trip_id, "BEGUN")
        uow.save(TRIPS, trip)
        await ORCHESTRATOR.start(SAGA, TripData(trip=trip_id), uow)
    return trip.state
