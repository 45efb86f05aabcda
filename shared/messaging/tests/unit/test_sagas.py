"""Sagas: what a definition may be, and how an instance answers replies in every order, number and lateness."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.replies import Failure, Reply, Success
from ftgo_messaging.runtime.errors import Undecodable
from ftgo_messaging.sagas.definition import InvalidSaga, Saga, SagaStep, StepKind
from ftgo_messaging.sagas.instance import SagaState, saga_instances, saga_instances_table
from ftgo_messaging.sagas.orchestrator import DROPPED, RESENT, TURNED, Orchestrator
from ftgo_messaging.sagas.steps import ENDED
from ftgo_messaging.sagas.timeouts import PastItsPivot, SagaHasEnded, SagaNotFound, compensate, remind, retry
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.testing.sagas import SagaConversation
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import MetaData
from structlog.testing import capture_logs

REPLIES = Channel("trip.replies", Kind.REPLY)
COMMANDS = Channel("trip.commands", Kind.COMMAND, key=lambda c: c.trip)
INSTANCES = saga_instances(saga_instances_table(MetaData()))


class TripCommand(Command[Success], frozen=True, kw_only=True):
    trip: str


def command(name: str) -> type[TripCommand]:
    cls: Any = msgspec.defstruct(name, [], bases=(TripCommand,), frozen=True, kw_only=True)
    return COMMANDS.carries(f"trip.{name}", replies_to=(REPLIES,))(cls)  # type: ignore[no-any-return]


BookHotel, CancelHotel, BookFlight, CancelFlight, Pay, CancelPay, Confirm = (
    command(n) for n in ("BookHotel", "CancelHotel", "BookFlight", "CancelFlight", "Pay", "CancelPay", "Confirm")
)


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    trip: str
    reason: str = ""


local_calls: list[str] = []


async def undo(data: Trip, uow: UnitOfWork) -> None:
    local_calls.append(f"undo {data.reason}")


async def done(data: Trip, uow: UnitOfWork) -> None:
    local_calls.append("done")


def refused(data: Trip, failure: Failure) -> Trip:
    return msgspec.structs.replace(data, reason=failure.reason)


def definition(**changes: Any) -> Saga[Trip]:
    steps = [
        SagaStep[Trip](name="begin", local=done, undo=undo),
        SagaStep[Trip](
            name="hotel",
            command=lambda d: BookHotel(trip=d.trip),
            compensation=lambda d: CancelHotel(trip=d.trip),
            on_failure=refused,
        ),
        SagaStep[Trip](
            name="flight",
            command=lambda d: BookFlight(trip=d.trip),
            compensation=lambda d: CancelFlight(trip=d.trip),
            on_failure=refused,
        ),
        SagaStep[Trip](name="pay", kind=StepKind.PIVOT, command=lambda d: Pay(trip=d.trip), on_failure=refused),
        SagaStep[Trip](name="confirm", kind=StepKind.RETRIABLE, command=lambda d: Confirm(trip=d.trip)),
        SagaStep[Trip](name="end", kind=StepKind.RETRIABLE, local=done),
    ]
    return Saga(**{"type": "trip", "version": 1, "data": Trip, "reply_channel": REPLIES, "steps": steps, **changes})


async def begin(saga: Saga[Trip] | None = None) -> tuple[SagaConversation, Memory, Orchestrator]:
    saga = saga or definition()
    orchestrator = Orchestrator(INSTANCES, [saga])
    memory = Memory()
    local_calls.clear()
    saga_id = await memory.run(lambda uow: orchestrator.start(saga, Trip(trip="t"), uow))
    return SagaConversation(orchestrator, memory, saga_id), memory, orchestrator


async def test_it_goes_forward_step_by_step() -> None:
    saga, *_ = await begin()
    for expected in (BookHotel, BookFlight, Pay, Confirm):
        assert isinstance(saga.last_command(), expected)
        assert saga.instance.state is SagaState.RUNNING
        await saga.reply(Success())
    assert saga.instance.state is SagaState.COMPLETED
    assert saga.instance.awaited_command is None
    assert local_calls == ["done", "done"]


async def test_a_refused_pivot_undoes_everything_backwards() -> None:
    saga, *_ = await begin()
    await saga.reply(Success())
    await saga.reply(Success())
    await saga.reply(Failure(reason="POOR"))
    for expected in (CancelFlight, CancelHotel):
        assert isinstance(saga.last_command(), expected)
        assert saga.instance.state is SagaState.COMPENSATING
        await saga.reply(Success())
    assert saga.instance.state is SagaState.COMPENSATED
    assert local_calls == ["done", "undo POOR"]


async def test_a_refused_first_step_undoes_only_what_was_before_it() -> None:
    saga, *_ = await begin()
    await saga.reply(Failure(reason="FULL"))
    assert len(saga.asked) == 1
    assert saga.instance.state is SagaState.COMPENSATED


async def test_a_late_or_doubled_reply_changes_nothing() -> None:
    saga, *_ = await begin()
    hotel = saga.asked[0]
    await saga.reply(Success())
    before = saga.instance
    await saga.reply(Success(), to=hotel)
    await saga.reply(Failure(reason="LATE"), to=hotel)
    after = saga.instance
    assert (after.step, after.state, after.awaited_command) == (before.step, before.state, before.awaited_command)
    assert [what for _, what, _ in after.history].count("dropped ftgo.messaging.Success") == 1
    assert len(saga.asked) == 2


async def test_a_reply_to_an_unknown_saga_is_a_dead_letter() -> None:
    saga, memory, _ = await begin()
    memory.aggregates.clear()
    with pytest.raises(Undecodable, match="unknown saga"):
        await saga.reply(Success())


async def test_an_overdue_command_is_sent_again_with_its_own_id_and_half_way_with_a_new_one() -> None:
    saga, memory, orchestrator = await begin()
    assert saga.instance.due_in == 30
    assert not await memory.run(lambda uow: remind(orchestrator, saga.saga_id, uow))
    for attempts, wait in ((2, 60), (3, 120), (4, 240)):
        assert await saga.overdue()
        assert (saga.instance.attempts, saga.instance.due_in) == (attempts, wait)
    first, second, third, renewed = saga.asked
    assert first.id == second.id == third.id != renewed.id
    assert saga.instance.awaited_command == renewed.id
    await saga.reply(Success(), to=first)  # it is dropped; the participant answers the other one as well
    assert saga.instance.awaited_command == renewed.id
    await saga.reply(Success())
    assert isinstance(saga.last_command(), BookFlight)


async def test_every_command_has_a_time_of_its_own() -> None:
    """However often, and for how long, the one before was asked."""
    saga, *_ = await begin()
    for _ in range(3):
        await saga.overdue()
    await saga.reply(Success())
    assert isinstance(saga.last_command(), BookFlight)
    assert (saga.instance.attempts, saga.instance.due_in) == (1, 30)


@pytest.mark.parametrize("successes", [3, 2])
async def test_what_cannot_be_refused_is_asked_again_with_a_new_id(successes: int) -> None:
    """A retriable step (3 successes before) or a compensation (2 and a refused pivot), refused a hundred times."""
    saga, _, orchestrator = await begin()
    for _ in range(successes):
        await saga.reply(Success())
    if successes == 2:
        await saga.reply(Failure(reason="POOR"))
    before = saga.instance
    for refusals in range(1, 101):
        first = saga.asked[-1]
        await saga.reply(Failure(reason="NOT_NOW"))
        assert saga.instance.awaited_command is None
        assert await saga.overdue()
        assert (saga.asked[-1].type, saga.asked[-1].id != first.id) == (first.type, True)
        assert orchestrator.is_stuck(saga.instance) is (refusals >= 5)
    stuck = saga.instance
    assert (stuck.state, stuck.step) == (before.state, before.step)
    assert stuck.due_in == 32 * 30  # not without end
    assert len(stuck.history) == 100
    assert stuck.history[:20] == (before.history + stuck.history[len(before.history) :])[:20]
    while not saga.instance.state.final:
        await saga.reply(Success())
    assert saga.instance.state is (SagaState.COMPLETED if successes == 3 else SagaState.COMPENSATED)
    assert not orchestrator.is_stuck(saga.instance)


def compensations(saga: SagaConversation) -> list[str]:
    return [x.type.removeprefix("trip.") for x in saga.asked if x.type.startswith("trip.Cancel")]


async def test_without_an_answer_it_turns_back_and_takes_back_what_it_does_not_know() -> None:
    saga, *_ = await begin()
    await saga.reply(Success())
    flight = saga.asked[-1]
    for _ in range(5):
        assert await saga.overdue()
        assert saga.asked[-1].type == flight.type
    assert await saga.overdue()
    assert saga.instance.state is SagaState.COMPENSATING
    assert compensations(saga) == ["CancelFlight"]  # nobody knows whether it was booked
    before = saga.instance
    await saga.reply(Success(), to=flight)  # it was, and the answer was late
    assert (saga.instance.step, saga.instance.awaited_command) == (before.step, before.awaited_command)
    await saga.reply(Success())
    await saga.reply(Success())
    assert compensations(saga) == ["CancelFlight", "CancelHotel"]
    assert saga.instance.state is SagaState.COMPENSATED
    assert local_calls == ["done", "undo TIMED_OUT"]


async def test_an_unanswered_pivot_is_asked_until_it_is_answered() -> None:
    saga, _, orchestrator = await begin()
    await saga.reply(Success())
    await saga.reply(Success())
    for _ in range(50):
        assert await saga.overdue()
    assert orchestrator.is_stuck(saga.instance)
    ids = [x.id for x in saga.asked if x.type == "trip.Pay"]
    assert (len(ids), len(set(ids))) == (51, 17)  # every third time it has a new one
    await saga.reply(Success())
    await saga.reply(Success())
    assert saga.instance.state is SagaState.COMPLETED


async def test_an_unanswered_pivot_that_can_be_taken_back_is() -> None:
    old = definition()
    pivot = replace(old.steps[3], if_unanswered=lambda d: CancelPay(trip=d.trip))
    saga, *_ = await begin(definition(steps=[*old.steps[:3], pivot, *old.steps[4:]]))
    await saga.reply(Success())
    await saga.reply(Success())
    for _ in range(6):
        assert await saga.overdue()
    pay = next(x for x in saga.asked if x.type == "trip.Pay")
    await saga.reply(Success(), to=pay)
    assert await saga.overdue()
    for _ in range(3):
        assert saga.instance.state is SagaState.COMPENSATING
        await saga.reply(Success())
    assert list(dict.fromkeys(compensations(saga))) == ["CancelPay", "CancelFlight", "CancelHotel"]
    assert saga.instance.state is SagaState.COMPENSATED


async def test_a_refused_pivot_is_not_taken_back() -> None:
    old = definition()
    pivot = replace(old.steps[3], if_unanswered=lambda d: CancelPay(trip=d.trip))
    saga, *_ = await begin(definition(steps=[*old.steps[:3], pivot, *old.steps[4:]]))
    for reply in (Success(), Success(), Failure(reason="POOR"), Success(), Success()):
        await saga.reply(reply)
    assert compensations(saga) == ["CancelFlight", "CancelHotel"]
    assert saga.instance.state is SagaState.COMPENSATED


async def test_an_operator_asks_again_or_turns_back() -> None:
    saga, memory, orchestrator = await begin()
    first = saga.asked[0]
    await memory.run(lambda uow: retry(orchestrator, saga.saga_id, uow))
    assert [x.id for x in saga.asked] == [first.id] * 2
    await memory.run(lambda uow: retry(orchestrator, saga.saga_id, uow, new_id=True))
    assert saga.instance.awaited_command == saga.asked[-1].id != first.id
    await memory.run(lambda uow: compensate(orchestrator, saga.saga_id, uow))
    assert compensations(saga) == ["CancelHotel"]
    with pytest.raises(PastItsPivot, match="is COMPENSATING and awaits 'hotel'"):
        await memory.run(lambda uow: compensate(orchestrator, saga.saga_id, uow))
    await saga.reply(Success())
    assert local_calls == ["done", "undo BY_OPERATOR"]
    for command in (retry, compensate):
        with pytest.raises(SagaHasEnded):
            await memory.run(lambda uow, command=command: command(orchestrator, saga.saga_id, uow))
        with pytest.raises(SagaNotFound):
            await memory.run(lambda uow, command=command: command(orchestrator, "nobody", uow))


@pytest.mark.parametrize("successes", [2, 3])
async def test_past_the_pivot_nobody_turns_back(successes: int) -> None:
    saga, memory, orchestrator = await begin()
    for _ in range(successes):
        await saga.reply(Success())
    with pytest.raises(PastItsPivot, match="cannot turn back any more"):
        await memory.run(lambda uow: compensate(orchestrator, saga.saga_id, uow))


async def test_a_running_instance_keeps_its_definition() -> None:
    saga, memory, _ = await begin()
    old = definition()
    new = definition(version=2, steps=[*old.steps[:1], *old.steps[2:]])
    later = SagaConversation(Orchestrator(INSTANCES, [old, new]), memory, saga.saga_id)
    await later.reply(Success())
    assert isinstance(later.last_command(), BookFlight)
    gone = SagaConversation(Orchestrator(INSTANCES, [new]), memory, saga.saga_id)
    with pytest.raises(LookupError, match="keep a definition"):
        await gone.reply(Success())


async def test_a_reply_is_loaded_for_with_its_saga_and_what_local_steps_need() -> None:
    """All at once for a batch. Local steps may come after this reply unless the next step asks a participant."""
    wanted = [(INSTANCES, "what local steps need")]
    saga, memory, orchestrator = await begin(definition(needs=lambda _: wanted))
    handler = orchestrator.handlers("trips", [Success]).find("ftgo.messaging.Success")
    assert handler is not None
    load_instance, load_locals = handler.needs

    async def needs(reply: Reply, saga_id: str = saga.saga_id) -> Any:
        message = Message(saga_id, "", "", {m.SAGA_ID: saga_id}, b"")

        async def step(uow: UnitOfWork) -> Any:
            instance = load_instance(reply, message, uow)
            await uow.load(instance)
            return len(list(instance)), load_locals(reply, message, uow)

        return await memory.run(step)

    assert await needs(Success()) == (1, [])  # the flight
    assert await needs(Failure(reason="FULL")) == (1, wanted)  # the beginning is undone
    assert await needs(Success(), saga_id="0" * 36) == (1, [])
    assert await needs(Success(), saga_id="nobody's") == (0, [])
    for _ in range(3):
        await saga.reply(Success())
    assert await needs(Success()) == (1, wanted)  # the end
    await saga.reply(Success())
    assert await needs(Success()) == (1, [])
    saga, memory, _ = await begin(definition(needs=lambda _: wanted))
    await saga.reply(Success())
    await saga.reply(Failure(reason="FULL"))
    assert saga.instance.state is SagaState.COMPENSATING
    assert await needs(Success(), saga.saga_id) == (1, wanted)  # the beginning is undone


async def test_what_happens_is_counted_and_a_stuck_saga_is_told_once() -> None:
    def counts() -> list[float]:
        ended = [ENDED.labels("trip", state)._value.get() for state in ("COMPLETED", "COMPENSATED")]
        return [*ended, *(x.labels("trip")._value.get() for x in (DROPPED, RESENT, TURNED))]

    before = counts()
    saga, *_ = await begin()
    hotel = saga.asked[0]
    for reply in (Success(), Success()):
        await saga.reply(reply)
    await saga.reply(Success(), to=hotel)
    with capture_logs() as logs:
        for _ in range(8):
            await saga.overdue()
    assert [x["log_level"] for x in logs if x["event"] == "saga.stuck"] == ["error"]
    for _ in range(2):
        await saga.reply(Success())
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 0, 1, 8, 0]
    other, *_ = await begin()
    for _ in range(6):
        await other.overdue()
    await other.reply(Success())
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1, 13, 1]


async def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    saga, memory, orchestrator = await begin()
    with pytest.raises(ValueError, match="saga trip version 1 is registered already"):
        orchestrator.register(definition())
    assert orchestrator.types == {"trip"}
    memory.put(INSTANCES, replace(saga.instance, step="begin"))
    with pytest.raises(LookupError, match="waits in the step begin, which asks nothing"):
        await saga.overdue()
    memory.put(INSTANCES, replace(saga.instance, step="confirm"))

    async def back(uow: UnitOfWork) -> None:
        await orchestrator.turn_back(saga.instance, "WHY", uow)

    with pytest.raises(ValueError, match="cannot turn back from the step confirm"):
        await memory.run(back)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
async def test_in_any_order_of_replies_it_ends_as_the_first_replies_say(choices: list[tuple[bool, int]]) -> None:
    """Late, doubled and shuffled replies: the state is a function of the first reply to each awaited command."""
    saga, *_ = await begin()
    first: dict[str, bool] = {}
    for ok, pick in choices:
        asked = saga.asked
        target = asked[pick % len(asked)]
        awaited = saga.instance.awaited_command == target.id
        if awaited:
            retriable = target.type in {"trip.Confirm", "trip.CancelHotel", "trip.CancelFlight"}
            ok = ok or retriable  # noqa: PLW2901 - those may not be refused
            first[target.id] = ok
        await saga.reply(Success() if ok else Failure(reason="NO"), to=target)
    while not saga.instance.state.final:
        first[saga.asked[-1].id] = True
        await saga.reply(Success())
    refused_once = not all(first.values())
    assert saga.instance.state is (SagaState.COMPENSATED if refused_once else SagaState.COMPLETED)
    types = [x.type.removeprefix("trip.") for x in saga.asked]
    booked = [t for t, x in zip(types, saga.asked, strict=True) if t.startswith("Book") and first[x.id]]
    undone = [t for t in types if t.startswith("Cancel")]
    expected = [b.replace("Book", "Cancel") for b in reversed(booked)] if refused_once else []
    assert undone == expected


STEPS = definition().steps


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], "needs steps"),
        ([STEPS[1], STEPS[1]], "must differ"),
        ([STEPS[3], STEPS[1]], "the order must be"),
        ([STEPS[4], STEPS[3]], "the order must be"),
        ([STEPS[3], replace(STEPS[3], name="again")], "only one pivot"),
        ([SagaStep[Trip](name="nothing")], "either a command or a local"),
        ([replace(STEPS[1], undo=undo)], "not both"),
        ([replace(STEPS[1], kind=StepKind.PIVOT)], "never taken back"),
        ([replace(STEPS[1], if_unanswered=lambda d: CancelPay(trip=d.trip))], "if_unanswered is for a pivot"),
    ],
)
def test_a_wrong_definition_is_refused_when_it_is_built(steps: list[SagaStep[Trip]], sentence: str) -> None:
    with pytest.raises(InvalidSaga, match=sentence):
        definition(steps=steps)
