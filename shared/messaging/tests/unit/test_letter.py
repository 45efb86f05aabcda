"""A dead letter's row and how it is shown: whatever the record held."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ftgo_messaging.consumer.letter import DeadLetter, State, document, from_row, storable, to_row
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Received
from hypothesis import given
from hypothesis import strategies as st

FAILED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADERS = st.lists(st.tuples(st.text(), st.none() | st.binary()))


def read(received: Received, **columns: Any) -> DeadLetter:
    """What is read of the row that is kept of a record."""
    row = to_row(received, "why")
    row["offset"] = row.pop("position")
    others = {
        "id": 7,
        "consumer": "kitchen",
        "failed_at": FAILED_AT,
        "state": "DEAD",
        "attempts": 1,
        "parks_key": True,
        "resolved_at": None,
    }
    return from_row(row | others | columns)


@given(key=st.none() | st.binary(), headers=HEADERS, body=st.none() | st.binary())
def test_the_record_comes_back_as_it_was(
    key: bytes | None, headers: list[tuple[str, bytes | None]], body: bytes | None
) -> None:
    received = Received("orders", 2, 3, key, headers, body)
    letter = read(received)
    assert letter.received == received
    json.dumps(document(letter)).encode()


def test_id_and_type_are_the_headers_of_these_names() -> None:
    letter = read(Received("orders", 0, 0, None, [("x", b"1"), (m.ID, b"i-\xff"), (m.TYPE, b"t")], None))
    assert (letter.message_id, letter.type) == ("i-�", "t")
    without = read(Received("orders", 0, 0, None, [("x", b"1")], None))
    assert (without.message_id, without.type) == (None, None)


def test_a_letter_is_shown_as_text_where_it_is_text() -> None:
    received = Received("orders", 2, 3, b"o-\xff", [(m.ID, b"i"), ("n", None)], b'{"a": 1}')
    assert document(read(received)) == {
        "id": 7,
        "state": State.DEAD,
        "attempts": 1,
        "consumer": "kitchen",
        "channel": "orders",
        "partition": 2,
        "offset": 3,
        "key": "o-\\xff",
        "messageId": "i",
        "type": None,
        "failedAt": FAILED_AT.isoformat(),
        "parksKey": True,
        "resolvedAt": None,
        "headers": [[m.ID, "i"], ["n", None]],
        "body": '{"a": 1}',
        "error": "why",
    }


@pytest.mark.parametrize(
    ("body", "shown"), [(None, {"body": None}), (b"", {"body": ""}), (b"\xff", {"bodyBase64": "/w=="})]
)
def test_a_body_is_shown_exactly(body: bytes | None, shown: dict[str, str | None]) -> None:
    letter = read(Received("orders", 0, 0, None, [], body), resolved_at=FAILED_AT)
    fields = document(letter)
    assert {name: value for name, value in fields.items() if name.startswith("body")} == shown
    assert (fields["key"], fields["resolvedAt"]) == (None, FAILED_AT.isoformat())


def test_of_a_long_text_the_begin_and_the_end_are_kept() -> None:
    assert storable("abcdefgh", 8) == "abcdefgh"
    assert storable("ab" + "-" * 20 + "uvwxyz", 8) == "ab ... 20 characters ... uvwxyz"
    assert storable("a\x00\ud800") == "a\\0\\ud800"
