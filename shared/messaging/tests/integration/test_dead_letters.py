"""Dead letters on a real PostgreSQL and a real Kafka: kept whole, keys parked, redriven once and in order."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.batch import HANDLED, BatchProcessor
from ftgo_messaging.consumer.dead_letters import UNRESOLVED, Key, NoSuchDeadLetter, NotResolvable
from ftgo_messaging.consumer.duplicates import Claim, claim
from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.letter import DeadLetter, State
from ftgo_messaging.consumer.redrive import Redriver
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel, Poison
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.replies import Success
from ftgo_messaging.runtime.connection import Connection, begin, connect
from ftgo_messaging.runtime.errors import DomainError, TransientError
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.testing.tables import new_tables
from ftgo_messaging.transaction.transactions import Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports.kafka import KafkaTransport
from ftgo_messaging.transports.kafka.binding import to_kafka
from ftgo_messaging.transports.kafka.topics import ensure_topics
from ftgo_messaging.transports.port import Record
from ftgo_messaging.upkeep.tables import messaging_tables
from ftgo_messaging.upkeep.unresolved import LETTERS, PARKED, Unresolved
from sqlalchemy import Column, Identity, Integer, MetaData, Table, Text, text
from structlog.testing import capture_logs

METADATA = MetaData()
messaging_tables(METADATA)
done = Table(
    "done",
    METADATA,
    Column("position", Integer, Identity(), primary_key=True),
    Column("key", Text, nullable=False),
    Column("n", Integer, nullable=False),
)
ORDERS = Channel("letters.commands", Kind.COMMAND, key=lambda c: c.key)
ANSWERS = Channel("letters.replies", Kind.REPLY)
_KEEP = text("INSERT INTO done (key, n) VALUES (:key, -1)")


@ORDERS.carries("letters.Do", replies_to=(ANSWERS,))
class Do(Command[Success], frozen=True, kw_only=True):
    key: str
    n: int


class No(DomainError):
    slug = "no"


class Bugs:
    """The handler, and the numbers that it cannot handle, or only later."""

    def __init__(self) -> None:
        self.poison: set[int] = set()
        self.transient: set[int] = set()
        self.hold: Callable[[Do], Awaitable[None]] | None = None
        self.handlers = MessageHandlers("letters")
        self.handlers.handle(Do)(self.do)

    async def do(self, command: Do, uow: UnitOfWork) -> Success:
        if self.hold is not None:
            await self.hold(command)
        if command.n in self.poison:
            raise RuntimeError(f"cannot do {command.n}")
        if command.n in self.transient:
            raise TransientError("away")
        if command.n == 40300:  # writes by a statement of its own, and refuses
            await uow.execute(_KEEP, {"key": command.key})
            raise No
        uow.append(done, {"key": command.key, "n": command.n})
        return Success()


@pytest.fixture
async def transactions(postgres: Postgres) -> AsyncIterator[Transactions]:
    dsn = (await postgres.create_service_databases(["letters"]))["letters"]
    async with new_tables(dsn, METADATA, pool_size=10) as engine:
        yield Transactions(engine, "letters")


@pytest.fixture
def bugs() -> Bugs:
    ORDERS.carries("letters.Do", replies_to=(ANSWERS,))(Do)  # a test may have moved it to a channel of its own
    return Bugs()


@pytest.fixture
def processor(transactions: Transactions, bugs: Bugs) -> BatchProcessor:
    return BatchProcessor(bugs.handlers, transactions, [ORDERS.name])


_positions = iter(range(1_000_000))


def received(key: str, n: int, **headers: str) -> Record:
    every = {m.ID: new_id(), m.TYPE: "letters.Do", m.SOURCE: "test", **headers}
    body = json.dumps({"key": key, "n": n}).encode()
    pairs = [(k, v.encode()) for k, v in every.items()]
    return Record(ORDERS.name, key.encode(), pairs, body, f"{ORDERS.name}/0@{next(_positions)}")


def header(record: Record, name: str) -> str:
    return (dict(record.headers)[name] or b"").decode()


async def rows(transactions: Transactions, sql: str) -> list[Any]:
    async with connect(transactions.engine) as connection:
        return [tuple(r) if len(r) > 1 else r[0] for r in await connection.execute(text(sql))]


async def done_of(transactions: Transactions, key: str) -> list[int]:
    return await rows(transactions, f"SELECT n FROM done WHERE key = '{key}' ORDER BY position")


async def states(transactions: Transactions) -> list[tuple[str, int]]:
    return await rows(transactions, "SELECT state, attempts FROM dead_letters ORDER BY id")


async def ordered(transactions: Transactions, letter_id: int) -> DeadLetter:
    async with begin(transactions.engine) as connection:
        return await dead_letters.order_redrive(connection, letter_id)


async def discarded(transactions: Transactions, letter_id: int) -> DeadLetter:
    async with begin(transactions.engine) as connection:
        return await dead_letters.discard(connection, letter_id)


async def kept_whole(transactions: Transactions, *states: State) -> list[DeadLetter]:
    async with connect(transactions.engine) as connection:
        found = await dead_letters.list_letters(connection, limit=1000, states=states or UNRESOLVED)
        return [await dead_letters.get_letter(connection, letter.id) for letter in found]


async def first(transactions: Transactions) -> int:
    return (await rows(transactions, "SELECT min(id) FROM dead_letters WHERE resolved_at IS NULL"))[0]


async def redrive_ordered(transactions: Transactions, processor: BatchProcessor, bugs: Bugs) -> None:
    """Of a letter that could be handled by now."""
    bugs.poison = {1}
    await processor.process([received("a", 1)])
    bugs.poison = set()
    await ordered(transactions, await first(transactions))


async def one_waits_for_a_lock(transactions: Transactions) -> None:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    assert await rows(transactions, sql) == [1]


async def test_later_messages_of_the_key_wait_and_others_go_on(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {2}
    batch = [received("a", 1), received("a", 2), received("b", 11), received("a", 3), received("b", 12)]
    await processor.process(batch)
    later = [received("a", 4), received("b", 13)]
    await processor.process(later)
    await processor.process([*batch, *later])  # delivered once more
    assert await done_of(transactions, "a") == [1]
    assert await done_of(transactions, "b") == [11, 12, 13]
    assert await states(transactions) == [("DEAD", 1), ("PARKED", 0), ("PARKED", 0)]


async def test_a_body_that_cannot_be_decoded_parks_its_key_within_the_batch(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    broken = replace(received("a", 0), body=b"{broken")
    await processor.process([received("a", 1), broken, received("a", 2)])
    assert await done_of(transactions, "a") == [1]
    assert await states(transactions) == [("DEAD", 1), ("PARKED", 0)]


async def test_whether_keys_are_parked_is_asked_only_where_it_may_matter(
    transactions: Transactions, processor: BatchProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement less for nearly every batch."""
    asked: list[set[Key]] = []
    parked_keys = dead_letters.parked_keys

    async def count(connection: Connection, consumer: str, keys: set[Key]) -> set[Key]:
        asked.append(keys)
        return await parked_keys(connection, consumer, keys)

    monkeypatch.setattr(dead_letters, "parked_keys", count)
    record = received("a", 1)
    await processor.process([record, received("b", 1)])
    assert asked == []
    await processor.process([record])
    assert asked == [{(ORDERS.name, b"a")}], "its first owner may have parked the key meanwhile"
    await processor.process([replace(received("b", 2), body=b"{broken")])
    assert asked[1:] == [{(ORDERS.name, b"b")}], "what claims no id has waited for nobody"


async def test_parked_keys_and_letters_are_counted(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    unresolved = Unresolved(transactions.engine)
    await unresolved.look()
    assert unresolved.counts == {}
    bugs.poison = {1, 11}
    await processor.process([received("a", 1), received("a", 2), received("b", 11), received("a", 3)])
    await processor.process([received("c", 1, **{m.TYPE: "letters.Unknown"})])
    await unresolved.look()
    assert unresolved.counts == {"letters": {"dead": 3, "parked": 2, "parkedKeys": 2}}
    assert PARKED.labels("letters")._value.get() == 2
    assert LETTERS.labels("letters", "PARKED")._value.get() == 2
    for letter in await kept_whole(transactions):
        await discarded(transactions, letter.id)
    await unresolved.look()
    assert unresolved.counts == {}
    assert PARKED.labels("letters")._value.get() == LETTERS.labels("letters", "DEAD")._value.get() == 0


async def test_messages_are_counted_by_what_became_of_them(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    def counts() -> dict[str, float]:
        outcomes = ("handled", "duplicate", "ignored", "dead", "parked")
        return {outcome: HANDLED.labels("letters", outcome)._value.get() for outcome in outcomes}

    before = counts()
    bugs.poison = {2}
    with capture_logs() as told:
        await processor.process([received("b", 1), again := received("a", 1), received("a", 2), received("a", 3)])
    await processor.process([again, again])
    await BatchProcessor(MessageHandlers("letters"), transactions).process([received("a", 4)])
    after = counts()
    levels = [(line["event"], line["log_level"]) for line in told if line["event"] != "batch.failed"]
    assert levels == [("message.dead", "error"), ("message.parked", "warning")]
    assert {outcome: after[outcome] - before[outcome] for outcome in before} == {
        "handled": 2,
        "duplicate": 2,
        "ignored": 1,
        "dead": 1,
        "parked": 1,
    }


async def test_a_record_is_made_a_dead_letter_without_being_tried(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    await processor.process([replace(received("a", 1), defect="unreadable")])
    assert await states(transactions) == [("DEAD", 1)]
    assert await rows(transactions, "SELECT error FROM dead_letters") == ["unreadable"]
    assert await done_of(transactions, "a") == []


async def test_a_redrive_handles_the_letter_once_and_its_followers_in_order(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {1}
    await processor.process([received("a", n) for n in range(1, 20)])
    bugs.poison = set()
    letter = await first(transactions)
    await asyncio.gather(*(ordered(transactions, letter) for _ in range(4)))
    with capture_logs() as told:
        await asyncio.gather(*(Redriver(processor).run_once() for _ in range(4)))
        await Redriver(processor).run_once()
    assert [line["letter"] for line in told] == list(range(letter, letter + 19)), "each is told once"
    await processor.process([received("a", 20)])
    assert await done_of(transactions, "a") == list(range(1, 21))
    assert {state for state, _ in await states(transactions)} == {"REDRIVEN"}
    with pytest.raises(NotResolvable, match="REDRIVEN"):
        await ordered(transactions, letter)
    with pytest.raises(NotResolvable, match="there is nothing to discard"):
        await discarded(transactions, letter)


async def test_a_redrive_that_fails_is_dead_again_and_a_follower_that_fails_stops_the_queue(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {1, 3}
    await processor.process([received("a", n) for n in range(1, 5)])
    letter = await first(transactions)
    await ordered(transactions, letter)
    await Redriver(processor).run_once()
    assert (await states(transactions))[0] == ("DEAD", 2)
    assert await done_of(transactions, "a") == []
    bugs.poison = {3}
    await ordered(transactions, letter)
    await Redriver(processor).run_once()
    assert await done_of(transactions, "a") == [1, 2]
    assert await states(transactions) == [("REDRIVEN", 2), ("REDRIVEN", 0), ("DEAD", 1), ("PARKED", 0)]
    errors = await rows(transactions, "SELECT error FROM dead_letters ORDER BY id")
    assert "cannot do 3" in errors[2]
    bugs.poison = set()
    await ordered(transactions, await first(transactions))
    await Redriver(processor).run_once()
    assert await done_of(transactions, "a") == [1, 2, 3, 4]


async def test_a_redrive_in_trouble_is_tried_again(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {1}
    await processor.process([received("a", 1)])
    bugs.poison, bugs.transient = set(), {1}
    await ordered(transactions, await first(transactions))
    with pytest.raises(TransientError):
        await Redriver(processor).run_once()
    assert await states(transactions) == [("REDRIVE", 1)]
    bugs.transient = set()
    await Redriver(processor).run_once()
    assert await states(transactions) == [("REDRIVEN", 1)]


async def test_a_letter_that_still_cannot_be_decoded_is_dead_again(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    await processor.process([replace(received("a", 1), body=b"{broken")])
    why = await rows(transactions, "SELECT error FROM dead_letters")
    await ordered(transactions, await first(transactions))
    assert await Redriver(processor).run_once() == 1
    assert await states(transactions) == [("DEAD", 2)]
    assert why[0] in (await rows(transactions, "SELECT error FROM dead_letters"))[0]


async def test_a_letter_that_nobody_handles_any_more_is_done(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {1}
    await processor.process([received("a", 1)])
    await ordered(transactions, await first(transactions))
    await Redriver(BatchProcessor(MessageHandlers("letters"), transactions)).run_once()
    assert await states(transactions) == [("REDRIVEN", 1)]
    assert await done_of(transactions, "a") == []


async def test_a_redrive_that_is_refused_after_a_statement_of_its_own_leaves_nothing_but_the_answer(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {40300}
    await processor.process([received("a", 40300, **{m.REPLY_CHANNEL: ANSWERS.name})])
    bugs.poison = set()
    await ordered(transactions, await first(transactions))
    await Redriver(processor).run_once()
    assert await states(transactions) == [("REDRIVEN", 1)]
    assert await done_of(transactions, "a") == []
    assert await rows(transactions, "SELECT channel FROM outbox") == [ANSWERS.name]


async def test_a_running_redriver_finds_what_was_ordered(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    await redrive_ordered(transactions, processor, bugs)

    async def redriven() -> None:
        assert await states(transactions) == [("REDRIVEN", 1)]

    running = asyncio.create_task(Redriver(processor).run(every=0.01))
    await eventually(redriven)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_a_discard_keeps_the_row_and_lets_the_key_go_on(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    bugs.poison = {1}
    await processor.process([received("a", n) for n in (1, 2, 3)])
    ids = await rows(transactions, "SELECT id FROM dead_letters ORDER BY id")
    await discarded(transactions, ids[1])  # one that only waits
    await discarded(transactions, ids[0])
    await discarded(transactions, ids[0])
    await Redriver(processor).run_once()
    await processor.process([received("a", 4)])
    assert await done_of(transactions, "a") == [3, 4]
    assert [s for s, _ in await states(transactions)] == ["DISCARDED", "DISCARDED", "REDRIVEN"]
    resolved = await rows(transactions, "SELECT count(*) FROM dead_letters WHERE resolved_at IS NOT NULL")
    assert resolved == [3]


async def test_a_letter_behind_another_of_its_key_cannot_be_redriven(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    broken = [replace(received("a", n), body=b"{broken") for n in (1, 2)]
    await processor.process(broken)
    ids = await rows(transactions, "SELECT id FROM dead_letters ORDER BY id")
    with pytest.raises(NotResolvable, match=f"waits behind {ids[0]}"):
        await ordered(transactions, ids[1])
    with pytest.raises(NoSuchDeadLetter):
        await ordered(transactions, 10**9)
    await discarded(transactions, ids[0])
    assert [s for s, _ in await states(transactions)] == ["DISCARDED", "DEAD"], "it was tried, and waits for somebody"
    assert (await ordered(transactions, ids[1])).state is State.REDRIVE


async def test_where_keys_go_on_every_letter_stands_for_itself(transactions: Transactions, bugs: Bugs) -> None:
    processor = BatchProcessor(bugs.handlers, transactions)
    bugs.poison = {1, 3}
    await processor.process([received("a", n) for n in (1, 2, 3)])
    assert await done_of(transactions, "a") == [2]
    bugs.poison = set()
    ids = await rows(transactions, "SELECT id FROM dead_letters ORDER BY id")
    await ordered(transactions, ids[1])
    await Redriver(processor).run_once()
    assert await done_of(transactions, "a") == [2, 3]
    assert [s for s, _ in await states(transactions)] == ["DEAD", "REDRIVEN"]


async def test_a_message_that_comes_while_the_last_letter_is_redriven_is_not_forgotten(
    transactions: Transactions, processor: BatchProcessor, bugs: Bugs
) -> None:
    """It must not be parked behind a letter that is resolved at this very moment: nobody would wake it."""
    await redrive_ordered(transactions, processor, bugs)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def hold(command: Do) -> None:
        if command.n == 1:
            entered.set()
            await go_on.wait()

    bugs.hold = hold
    redrive = asyncio.create_task(Redriver(processor).run_once())
    await entered.wait()
    second = asyncio.create_task(processor.process([received("a", 2)]))

    await eventually(lambda: one_waits_for_a_lock(transactions))
    go_on.set()
    await asyncio.gather(redrive, second)
    await Redriver(processor).run_once()
    assert await done_of(transactions, "a") == [1, 2]


async def test_a_previous_owner_that_parks_late_is_waited_for(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    """A partition moves while its old owner is about to park a key. The new owner gets the same messages; it must not
    handle the second one although, when it looked, nothing was parked."""
    batch = [received("a", 1), received("a", 2)]
    async with begin(transactions.engine) as old:
        await claim(old, "letters", [Claim("test", header(batch[0], m.ID))])
        await dead_letters.write(old, "letters", batch[0], "cannot do 1", parks_key=True, identified=True)
        new = asyncio.create_task(processor.process(batch))
        await eventually(lambda: one_waits_for_a_lock(transactions))
    await new
    assert await done_of(transactions, "a") == []
    assert await states(transactions) == [("DEAD", 1), ("PARKED", 0)]


async def test_a_refusal_after_a_statement_of_ones_own_leaves_nothing_but_the_answer(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    answered = {m.REPLY_CHANNEL: ANSWERS.name}
    await processor.process([received("a", 1), received("a", 40300, **answered), received("a", 2)])
    assert await done_of(transactions, "a") == [1, 2]
    assert await states(transactions) == []
    assert await rows(transactions, "SELECT headers->>'outcome' FROM outbox") == ["FAILURE"]


async def test_junk_under_the_id_of_a_waiting_command_does_not_make_it_a_duplicate(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    command = received("a", 1)
    same_id = {m.ID: header(command, m.ID)}
    junk = [
        replace(received("b", 1, **same_id), body=b"{broken"),
        replace(received("a", 1, **same_id), key=b"another"),
        received("a", 1, **same_id | {m.TYPE: "letters.Unknown"}),
        received("stranger", 1, **same_id | {m.SOURCE: "a-stranger"}),  # a message, but not that one
    ]
    for batch in (junk, [command], junk, [command]):
        await processor.process(batch)
    assert await done_of(transactions, "a") == [1]
    assert await done_of(transactions, "stranger") == [1]
    assert [state for state, _ in await states(transactions)] == ["DEAD"] * 3
    sources = await rows(transactions, "SELECT sources FROM processed_messages")
    assert sources == ["a-stranger test"]


async def test_two_sources_of_one_id_in_one_batch_are_two_messages(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    shared = {m.ID: new_id()}
    batch = [received("a", 1, **shared), received("b", 2, **shared | {m.SOURCE: "other"}), received("c", 3)]
    await processor.process(batch)
    await processor.process(batch)
    assert await rows(transactions, "SELECT n FROM done ORDER BY n") == [1, 2, 3]


async def test_releases_with_and_without_sources_know_each_others_duplicates(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    """During a rollout a partition moves from one to the other, and what was not committed comes again."""
    ours, theirs = received("a", 1), received("a", 2)
    previous_release = (
        "INSERT INTO processed_messages (consumer, message_id) VALUES ('letters', '{}') "
        "ON CONFLICT DO NOTHING RETURNING message_id"
    )
    assert len(await rows(transactions, previous_release.format(header(theirs, m.ID)))) == 1
    await processor.process([ours, theirs])
    assert await done_of(transactions, "a") == [1]
    assert await rows(transactions, previous_release.format(header(ours, m.ID))) == []


async def test_no_sort_of_rubbish_stops_a_consumer_or_is_kept_twice(
    transactions: Transactions, processor: BatchProcessor
) -> None:
    def with_headers(*headers: tuple[str, bytes | None], body: bytes | None = b"{}") -> Record:
        return Record(ORDERS.name, b"key", list(headers), body, f"{ORDERS.name}/0@{next(_positions)}")

    a_type = (m.TYPE, b"letters.Do")
    rubbish = [
        with_headers((m.ID, b"\xff\xfe"), a_type),
        with_headers((m.ID, b"nul\x00" * 9), (m.TYPE, b"\x00")),
        with_headers((m.ID, b"x" * 36), a_type),
        with_headers((m.ID, new_id().upper().encode()), a_type),
        with_headers((m.ID, None), a_type),
        with_headers((m.ID, new_id().encode()), (m.TYPE, None)),
        with_headers(),
        with_headers((m.ID, new_id().encode()), a_type, ("custom", b"\xff")),
        with_headers((m.ID, new_id().encode()), a_type, body=None),
        with_headers((m.ID, new_id().encode()), a_type, body=b"\x00" * 2_000_000),
        Record(
            ORDERS.name,
            b"\xff\x00key",
            [(m.ID, new_id().encode()), a_type],
            b"{}",
            f"{ORDERS.name}/0@{next(_positions)}",
        ),
        Record(ORDERS.name, None, [], None, f"{ORDERS.name}/0@{next(_positions)}"),
    ]
    await processor.process(rubbish)
    await processor.process(rubbish)  # a crash before the offset commit
    kept = await kept_whole(transactions)
    assert [letter.received for letter in kept] == rubbish  # every byte of them
    assert all(letter.error for letter in kept)


@pytest.mark.parametrize("poison", [None, Poison.GO_ON])
async def test_one_poison_in_a_thousand_delays_nobody_but_its_key(
    transactions: Transactions, bugs: Bugs, kafka: Kafka, poison: Poison | None
) -> None:
    topic = Channel(f"letters.{new_id()}", Kind.COMMAND, key=lambda c: c.key)
    topic.carries("letters.Do", replies_to=(ANSWERS,))(Do)
    await ensure_topics(kafka.bootstrap, [topic.name], partitions=1)
    bugs.poison = {500}
    keys = [f"key-{n % 10}" for n in range(1000)]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        records = [received(key, n) for n, key in enumerate(keys)]
        sent = [
            await producer.send(
                topic.name, r.body, key=r.key, headers=to_kafka({n: v.decode() for n, v in r.headers}), partition=0
            )
            for r in records
        ]
        await asyncio.gather(*sent)
    others = [n for n in range(1000) if n % 10 != 0]
    reader = ChannelConsumer(
        f"g-{new_id()}",
        [topic],
        bugs.handlers,
        transactions,
        KafkaTransport(kafka.bootstrap),
        poison=poison,
        patience=60,
    )
    began = time.monotonic()
    await reader.start()
    watching = asyncio.create_task(reader.watch())
    try:

        async def all_others() -> None:
            assert await rows(transactions, "SELECT count(*) FROM done WHERE key <> 'key-0'") == [len(others)]

        await eventually(all_others, within=30)
        assert time.monotonic() - began < 15  # 5 s on a machine with nothing else to do
        before = [n for n in range(0, 1000, 10) if n < 500 or (n > 500 and poison is Poison.GO_ON)]

        async def key_0() -> None:
            assert await done_of(transactions, "key-0") == before

        await eventually(key_0, within=10)
        letter = (await kept_whole(transactions, State.DEAD))[0]
        assert (letter.channel, letter.origin) == (topic.name, f"{topic.name}/0@500")
        assert (letter.consumer, letter.key, letter.attempts) == ("letters", b"key-0", 1)
        assert (letter.headers, letter.body) == (list(records[500].headers), records[500].body)
        assert letter.message_id == header(records[500], m.ID)
        assert "RuntimeError: cannot do 500" in letter.error
        bugs.poison = set()
        await ordered(transactions, letter.id)

        async def all_of_key_0() -> None:
            expected = [*before, 500, *(n for n in range(510, 1000, 10) if poison is None)]
            assert await done_of(transactions, "key-0") == expected
            assert await rows(transactions, "SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL") == [0]

        await eventually(all_of_key_0, within=30)
    finally:
        watching.cancel()
        await reader.stop()
