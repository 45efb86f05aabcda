"""The decoder, on bytes built here after the documented formats."""

import contextlib
import struct

import pytest
from ftgo_messaging.outbox.pgoutput import (
    Begin,
    Commit,
    Insert,
    LogicalMessage,
    Relation,
    decode,
    lsn_of,
    lsn_text,
)
from hypothesis import given
from hypothesis import strategies as st

BEGIN = b"B" + struct.pack("!QqI", 0x1_0000_0010, 777, 4711)
COMMIT = b"C\0" + struct.pack("!QQq", 0x1_0000_0010, 0x1_0000_0048, 777)
RELATION = (
    b"R" + struct.pack("!I", 16390) + b"public\0outbox\0d" + struct.pack("!H", 2)
    + b"\1position\0" + struct.pack("!Ii", 20, -1) + b"\0key\0" + struct.pack("!Ii", 25, -1)
)  # fmt: skip
MESSAGE = b"M\1" + struct.pack("!Q", 99) + b"ftgo.heartbeat\0" + struct.pack("!I", 3) + b"abc"


def insert(*values: bytes | None) -> bytes:
    columns = [b"n" if v is None else b"b" + struct.pack("!I", len(v)) + v for v in values]
    return b"I" + struct.pack("!I", 16390) + b"N" + struct.pack("!H", len(values)) + b"".join(columns)


def test_a_transaction() -> None:
    assert decode(BEGIN) == Begin(0x1_0000_0010, 4711)
    assert decode(RELATION) == Relation(16390, "public", "outbox", ("position", "key"))
    assert decode(insert(b"\0\0\0\0\0\0\0\7", None, b"")) == Insert(16390, (b"\0\0\0\0\0\0\0\7", None, b""))
    assert decode(COMMIT) == Commit(0x1_0000_0010, 0x1_0000_0048)


def test_text_values_and_unchanged_ones() -> None:
    payload = b"I" + struct.pack("!I", 1) + b"N" + struct.pack("!H", 2) + b"t" + struct.pack("!I", 2) + b"42" + b"u"
    assert decode(payload) == Insert(1, (b"42", None))


def test_logical_messages() -> None:
    assert decode(MESSAGE) == LogicalMessage(True, 99, "ftgo.heartbeat", b"abc")
    assert decode(b"M\0" + MESSAGE[2:]) == LogicalMessage(False, 99, "ftgo.heartbeat", b"abc")


@pytest.mark.parametrize("kind", [b"Y", b"O", b"U", b"D", b"T"])
def test_kinds_without_use_are_passed_by(kind: bytes) -> None:
    assert decode(kind + b"anything") is None


@pytest.mark.parametrize("payload", [BEGIN, COMMIT, RELATION, MESSAGE, insert(b"abc", b"defg")])
def test_every_cut_is_noticed(payload: bytes) -> None:
    for end in range(1, len(payload)):
        with pytest.raises(ValueError, match="cut off"):
            decode(payload[:end])


def test_an_insert_without_a_new_row_is_refused() -> None:
    with pytest.raises(ValueError, match="without a new row"):
        decode(insert(b"x").replace(b"N", b"O", 1))


@pytest.mark.parametrize("payload", [b"", b"S streaming", b"x", b"\0"])
def test_what_is_not_pgoutput_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not pgoutput"):
        decode(payload)


@given(st.lists(st.none() | st.binary(max_size=70), max_size=12))
def test_any_row_comes_back(values: list[bytes | None]) -> None:
    assert decode(insert(*values)) == Insert(16390, tuple(values))


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(payload)


@given(st.integers(0, 2**64 - 1))
def test_positions_read_as_they_are_written(lsn: int) -> None:
    assert lsn_of(lsn_text(lsn)) == lsn


def test_a_position_as_the_server_prints_it() -> None:
    assert lsn_of("16/B374D848") == 0x16_B374D848
    assert lsn_text(0x16_B374D848) == "16/B374D848"
