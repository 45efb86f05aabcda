"""Tailing the log without a server: what is read from it, how far it is worked off, and what a sweep of the table and
the log have shown of each other."""

import uuid

from ftgo_messaging.messages.message import Message
from ftgo_messaging.outbox.delivery import Row
from ftgo_messaging.outbox.log_rows import LogRows, Shown
from ftgo_messaging.outbox.pgoutput import Begin, Commit, Event, Insert, LogicalMessage, Relation
from ftgo_messaging.outbox.reconciliation import Reconciliation

ID = "0199f0a4-8a6e-7cc1-9d3c-2f6a51f0b7e5"
# In another order than ours, and with a column that we do not know.
COLUMNS = Relation(
    7, "public", "outbox", ("body", "later", "key", "channel", "headers", "message_id", "shard", "position")
)
ALL = range(64)


def inserted(position: int, shard: int = 3, relation: int = 7) -> Insert:
    place = (uuid.UUID(ID).bytes, shard.to_bytes(2), position.to_bytes(8))
    return Insert(relation, (b"{}", None, b"k", b"c", b'{"a": "b"}', *place))


def transaction(xid: int, end_lsn: int, *positions: int) -> list[Event]:
    return [Begin(end_lsn - 1, xid), *(inserted(position) for position in positions), Commit(end_lsn - 1, end_lsn)]


def row(position: int) -> Row:
    return Row(position, 3, Message(ID, "c", "k", {"a": "b"}, b"{}"))


def shown(*positions: int, xid: int = 5) -> Shown:
    return Shown([row(position) for position in positions], dict.fromkeys(positions, xid), None)


# -- the log ---------------------------------------------------------------------------------------------------------


def test_rows_come_with_their_transactions_by_the_names_of_the_columns() -> None:
    log = LogRows(0)
    found = log.take_in([COLUMNS, *transaction(11, 100, 1, 2), *transaction(12, 200, 3)], ALL)
    assert found == Shown([row(1), row(2), row(3)], {1: 11, 2: 11, 3: 12}, 200)
    assert not log.in_transaction


def test_rows_of_other_shards_are_passed_by() -> None:
    log = LogRows(0)
    found = log.take_in([COLUMNS, Begin(9, 11), inserted(1, shard=3), inserted(2, shard=4), Commit(9, 10)], [4])
    assert ([r.position for r in found.rows], found.xids, found.end_lsn) == ([2], {2: 11}, 10)


def test_only_whole_transactions_count_as_worked_off() -> None:
    """The rows of one share their place in the log: confirmed in its middle, the rest of it would be lost."""
    log = LogRows(50)
    first, *rest = transaction(11, 100, 1, 2)
    for part, done, within in (([COLUMNS, first, rest[0]], 50, True), ([rest[1]], 50, True), ([rest[2]], 100, False)):
        log.advance(log.take_in(part, ALL), server_lsn=900)
        assert (log.done_lsn, log.in_transaction) == (done, within)


def test_what_other_databases_write_moves_the_place_on_while_nothing_is_under_way() -> None:
    log = LogRows(50)
    log.advance(log.take_in([], ALL), server_lsn=60)
    assert log.done_lsn == 60
    log.advance(log.take_in([], ALL), server_lsn=55)
    assert log.done_lsn == 60, "never back"
    log.advance(log.take_in([LogicalMessage(False, 70, "x", b"")], ALL), server_lsn=70)
    assert log.done_lsn == 70
    log.advance(log.take_in(transaction(11, 80), ALL), server_lsn=900)
    assert log.done_lsn == 80, "what has ended here may be followed by rows that are on their way"


# -- the log and the table ---------------------------------------------------------------------------------------------


def test_what_a_sweep_has_published_the_log_shows_without_effect_once() -> None:
    both = Reconciliation()
    both.swept([row(1), row(2)])
    both.end_sweep(100)
    assert both.unpublished(shown(1, 3)) == [row(3)]
    assert both.unpublished(shown(1)) == [row(1)], "a position that comes twice is another row, of a new table"
    both.passed(99)
    assert both.unpublished(shown(2)) == []
    both.swept([row(4)])
    both.passed(100)
    assert both.unpublished(shown(4)) == [row(4)], "the stream shows nothing older any more"


def test_without_a_stream_nothing_swept_is_remembered() -> None:
    both = Reconciliation()
    both.swept([row(1)])
    both.forget_swept()
    assert both.unpublished(shown(1)) == [row(1)]


def test_a_sweep_owes_what_the_log_has_shown_meanwhile() -> None:
    both = Reconciliation()
    both.swept([row(1)])
    both.owe([row(1), row(2), row(3)], shown(1, 2, 3, xid=8))
    assert both.owed == {2: 8, 3: 8}, "the first was published before the log showed it"
    assert both.unpublished(shown(1)) == [row(1)], "and is not expected again"
    assert not both.settled(0)
    both.swept([row(2)])
    assert both.owed == {3: 8}
    assert both.unpublished(shown(2)) == [row(2)], "the log has shown it already"
    both.settle({7})
    assert both.owed == {3: 8}, "its transaction was not visible yet"
    both.settle({8})
    assert both.settled(0)


def test_a_sweep_does_not_end_before_the_place_of_a_predecessor() -> None:
    both = Reconciliation()
    both.sweep_to_lsn = 100
    assert [both.settled(lsn) for lsn in (99, 100, 101)] == [False, True, True]


def test_a_delete_that_came_too_early_is_repeated_until_its_transaction_is_visible() -> None:
    both = Reconciliation()
    both.note_undeleted([row(1)], shown(1, xid=5))
    both.note_undeleted([row(2)], shown(1, 2, xid=6))
    assert both.undeleted == {1: (row(1), 5), 2: (row(2), 6)}
    both.deleted_again({6, 7})
    assert both.undeleted == {1: (row(1), 5)}


async def test_a_row_that_stays_the_oldest_was_missed() -> None:
    answers: list[int | None] = [4, 4, 5, None, None, 6]

    class Connection:
        async def execute(self, *_: object) -> list[list[int | None]]:
            return [[answers.pop(0)]]

    both = Reconciliation()
    missed = [await both.missed(Connection(), [1]) for _ in range(6)]  # type: ignore[arg-type]
    assert missed == [None, 4, None, None, None, None]
