"""What a relay makes of the slot that it finds, without a server: the real ones are in test_log_tailing."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from ftgo_messaging.outbox.slot import GAPS, RETAINED, Slot, WrongServer
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import TransientError

SOUND: dict[str, Any] = {
    "exists": True,
    "active_pid": None,
    "wal_status": "reserved",
    "plugin": "pgoutput",
    "confirmed": "0/64",
    "known": 100,
    "known_server": "one",
    "server": "one",
    "wal_level": "logical",
    "timeout_ms": 12_000,
    "published": True,
}
NEW_LSN = 500


class Server:
    """Answers the statements of a slot: with ``found``, and so many times before with a reader that has not gone."""

    def __init__(self, readers: int = 0, retained: int | None = 7, **found: Any) -> None:
        self.found = SOUND | found
        self.readers = readers
        self.retained = retained
        self.done: list[str] = []
        self.remembered: Mapping[str, Any] = {}

    async def execute(self, statement: object, parameters: Mapping[str, Any]) -> list[Any]:
        sql = str(statement)
        if sql.startswith("SELECT s.slot_name"):
            self.readers -= 1
            return [self.found | {"active_pid": 17 if self.readers >= 0 else None}]
        if "INSERT INTO relay_position" in sql:
            self.remembered = parameters
            return []
        if "pg_wal_lsn_diff" in sql:
            return [[self.retained]]
        if "slot_name ~ :ours" in sql:
            return []
        name = next(n for n in ("create_logical", "drop_replication", "terminate") if n in sql)
        self.done.append(name)
        return [["0/1F4"]]


def connection(server: Server) -> Connection:
    return cast(Connection, server)


async def prepared(server: Server) -> Slot:
    slot = Slot("kitchen", 0, 1)
    await slot.prepare(connection(server))
    assert server.remembered == {"slot": "kitchen_relay_0_of_1", "server": "one", "lsn": slot.start_lsn}
    return slot


@pytest.mark.parametrize(
    ("found", "reason", "start_lsn", "done"),
    [
        ({}, None, 100, []),
        ({"known": 120}, None, 120, []),  # the server has forgotten the last confirmation
        ({"known": None, "known_server": None}, None, 100, []),
        ({"known": None, "exists": False, "confirmed": None}, None, NEW_LSN, ["create_logical"]),
        ({"exists": False, "confirmed": None}, "gone", NEW_LSN, ["create_logical"]),
        ({"wal_status": "lost"}, "lost", NEW_LSN, ["drop_replication", "create_logical"]),
        ({"plugin": "test_decoding"}, None, NEW_LSN, ["drop_replication", "create_logical"]),
        ({"known": 99}, "moved", 100, []),
        ({"known": 120, "known_server": "other"}, "another server", 100, []),
    ],
)
async def test_it_streams_from_where_nothing_is_missed_or_tells_that_something_may_be(
    found: dict[str, Any], reason: str | None, start_lsn: int, done: list[str]
) -> None:
    reasons = ("another server", "gone", "lost", "moved")
    before = {each: GAPS.labels(each)._value.get() for each in reasons}
    server = Server(**found)
    assert (await prepared(server)).start_lsn == start_lsn
    assert server.done == done
    assert [each for each in reasons if GAPS.labels(each)._value.get() > before[each]] == ([reason] if reason else [])


@pytest.mark.parametrize(("timeout_ms", "seconds"), [(12_000, 4.0), (60_000, 10.0), (0, 10.0)])
async def test_it_reports_three_times_before_the_server_gives_up(timeout_ms: int, seconds: float) -> None:
    assert (await prepared(Server(timeout_ms=timeout_ms))).status_seconds == seconds


@pytest.mark.parametrize(
    ("found", "cure"), [({"wal_level": "replica"}, "wal_level = logical"), ({"published": False}, "run the migrations")]
)
async def test_a_server_that_is_not_set_up_says_what_to_change(found: dict[str, Any], cure: str) -> None:
    server = Server(**found)
    with pytest.raises(WrongServer, match=cure):
        await Slot("kitchen", 0, 1).prepare(connection(server))
    assert server.done == []


async def test_a_deposed_reader_is_ended_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    server = Server(readers=3)
    assert (await prepared(server)).start_lsn == 100
    assert (server.done, len(pauses)) == (["terminate"], 2)
    with pytest.raises(TransientError, match="17"):
        await Slot("kitchen", 0, 1).prepare(connection(Server(readers=1000)))


async def test_the_log_that_it_keeps_is_measured() -> None:
    slot = Slot("kitchen", 0, 1)
    await slot.look_after(connection(Server(retained=7)))
    await slot.look_after(connection(Server(retained=None)))  # lost
    assert RETAINED._value.get() == 7
