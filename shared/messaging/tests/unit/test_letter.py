"""A dead letter's row and how it is shown: whatever the record held."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ftgo_messaging.consumer.letter import DeadLetter, State, document, from_row, storable, to_row
from ftgo_messaging.messages import message as m
from ftgo_messaging.transports.port import Record
from hypothesis import given
from hypothesis import strategies as st

FAILED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADERS = st.lists(st.tuples(st.text(), st.none() | st.binary()))


def read(received: Record, **columns: Any) -> DeadLetter:
    """What is read of the row that is kept of a record."""
    row = to_row(received, "why")
    others = {
        "id": 7,
        "consumer": "kitchen",
        "partition": None,
        "position": None,
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
    received = Record("orders", key, headers, body, "orders/2@3")
    letter = read(received)
    assert letter.received == received
    json.dumps(document(letter)).encode()


def test_id_and_type_are_the_headers_of_these_names() -> None:
    letter = read(Record("orders", None, [("x", b"1"), (m.ID, b"i-\xff"), (m.TYPE, b"t")], None, "orders/0@0"))
    assert (letter.message_id, letter.type) == ("i-�", "t")
    without = read(Record("orders", None, [("x", b"1")], None, "orders/0@0"))
    assert (without.message_id, without.type) == (None, None)


def test_a_letter_of_an_earlier_release_has_its_place_and_its_attributes() -> None:
    """It was kept with the names that attributes have in Kafka."""
    of_kafka = Record("orders", b"o", [("ce_id", b"i"), ("ce_type", b"t"), ("traceparent", b"x")], b"{}", "")
    letter = read(of_kafka, origin=None, partition=2, position=3)
    assert letter.received == Record(
        "orders", b"o", [(m.ID, b"i"), (m.TYPE, b"t"), ("traceparent", b"x")], b"{}", "orders/2@3"
    )


def test_a_letter_is_shown_as_text_where_it_is_text() -> None:
    received = Record("orders", b"o-\xff", [(m.ID, b"i"), ("n", None)], b'{"a": 1}', "orders/2@3")
    assert document(read(received)) == {
        "id": 7,
        "state": State.DEAD,
        "attempts": 1,
        "consumer": "kitchen",
        "channel": "orders",
        "origin": "orders/2@3",
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
    letter = read(Record("orders", None, [], body, "orders/0@0"), resolved_at=FAILED_AT)
    fields = document(letter)
    assert {name: value for name, value in fields.items() if name.startswith("body")} == shown
    assert (fields["key"], fields["resolvedAt"]) == (None, FAILED_AT.isoformat())


def test_of_a_long_text_the_begin_and_the_end_are_kept() -> None:
    assert storable("abcdefgh", 8) == "abcdefgh"
    assert storable("ab" + "-" * 20 + "uvwxyz", 8) == "ab ... 20 characters ... uvwxyz"
    assert storable("a\x00\ud800") == "a\\0\\ud800"
