"""What becomes of each message of a batch, as the claims and the parked keys decide."""

from typing import Any

from ftgo_messaging.consumer.duplicates import Claim
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.letter import State
from ftgo_messaging.consumer.plan import plan
from ftgo_messaging.consumer.tasks import Task, decode
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.transports.port import Record

CHANNEL = Channel("planned.commands", Kind.COMMAND, key=lambda c: c.key)
HANDLERS = MessageHandlers("planned")


@CHANNEL.carries("planned.Do")
class Do(Command[Success], frozen=True, kw_only=True):
    key: str


@HANDLERS.handle(Do)
async def do(command: Do, uow: Any) -> None:
    return None


def task(key: str, message_id: str | None = None, **changes: Any) -> Task:
    headers = {m.ID: message_id or new_id(), m.TYPE: "planned.Do", m.SOURCE: "test"} | changes.pop("headers", {})
    body = changes.pop("body", f'{{"key": "{key}"}}'.encode())
    received = Record(
        CHANNEL.name, key.encode(), [(n, v.encode()) for n, v in headers.items()], body, f"{CHANNEL.name}/0@0"
    )
    found = decode(received, HANDLERS)
    assert found is not None
    return found


def new(*tasks: Task) -> set[Claim]:
    return {t.claims for t in tasks if t.claims is not None}


PARKING = {CHANNEL.name}


def test_what_is_new_runs_in_order_and_what_was_handled_does_not() -> None:
    tasks = [task("a"), task("b"), task("a")]
    decided = plan(tasks, new(tasks[0], tasks[2]), set(), PARKING)
    assert (decided.run, decided.kept, decided.duplicates) == ([tasks[0], tasks[2]], [], 1)


def test_the_same_message_twice_in_one_batch_runs_once() -> None:
    twice = new_id()
    tasks = [task("a", twice), task("a", twice)]
    assert plan(tasks, new(*tasks), set(), PARKING).run == [tasks[0]]


def test_the_same_id_of_two_sources_is_two_messages() -> None:
    shared = new_id()
    tasks = [task("a", shared, headers={m.SOURCE: "somebody-else"}), task("a", shared)]
    assert plan(tasks, new(*tasks), set(), PARKING).run == tasks


def test_behind_a_dead_letter_its_key_waits_and_others_go_on() -> None:
    dead = task("a").failed(RuntimeError("a bug"))
    before, behind, other = task("a"), task("a"), task("b")
    tasks = [before, dead, behind, other]
    decided = plan(tasks, new(*tasks), set(), PARKING)
    assert (decided.run, decided.duplicates) == ([before, other], 0)
    assert decided.kept == [(dead, State.DEAD), (behind, State.PARKED)]
    going_on = plan(tasks, new(*tasks), set(), set())
    assert (going_on.run, going_on.kept) == ([before, behind, other], [(dead, State.DEAD)])


def test_what_is_parked_already_waits() -> None:
    waiting, other = task("a"), task("b")
    decided = plan([waiting, other], new(waiting, other), {(CHANNEL.name, b"a")}, PARKING)
    assert (decided.run, decided.kept) == ([other], [(waiting, State.PARKED)])


def test_a_message_with_a_body_that_cannot_be_decoded_claims_no_id_and_parks_its_key() -> None:
    broken, behind = task("a", body=b"{broken"), task("a")
    assert broken.claims is None
    decided = plan([broken, behind], new(behind), set(), PARKING)
    assert decided.kept == [(broken, State.DEAD), (behind, State.PARKED)]


def test_what_is_no_message_of_the_channel_is_kept_and_parks_nothing() -> None:
    strangers = [
        task("a", headers={m.ID: "7"}),
        task("a", headers={m.SOURCE: ""}),
        task("a", headers={m.TYPE: "planned.Nobody"}),
        task("a", headers={m.TYPE: "ftgo.messaging.Success"}),
        task("a", body=b'{"key": "not a"}'),
    ]
    behind = task("a")
    decided = plan([*strangers, behind], new(*strangers, behind), set(), PARKING)
    assert new(*strangers) == set()
    assert [t for t, _ in decided.kept] == strangers
    assert decided.run == [behind]
