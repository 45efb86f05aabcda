"""The checker on hand-made histories: a clean one, and one for each invariant in which it is violated."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checker import INVARIANTS, check, judge, report
from history_of_one_order import CONSUMER, CREATE, ORDER, SAGA, World, one_order
from statistics_of_run import statistics

_Bend = Callable[[World], None]
_BENDS: dict[str, tuple[str, _Bend, tuple[str, ...]]] = {}


def bend(invariant: str, *others: str) -> Callable[[_Bend], _Bend]:
    """Declare a way to break the clean history; it violates ``invariant``, and of the others only these."""

    def declare(function: _Bend) -> _Bend:
        _BENDS[function.__name__] = (invariant, function, others)
        return function

    return declare


def _edit(w: World, service: str, table: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change or drop (None) rows of all commits of a service."""
    for number, commit in enumerate(w.evidence.commits[service]):
        changes = []
        for operation, name, row in commit.changes:
            new = edit(dict(row)) if name == table else row
            if new is not None:
                changes.append((operation, name, new))
        w.evidence.commits[service][number] = dataclasses.replace(commit, changes=changes)


def _drop_record(w: World, name: str) -> None:
    w.evidence.records = [r for r in w.evidence.records if r.id != name]


@bend("I1")
def accepted_and_lost(w: World) -> None:
    answer = {"orderId": "order-2", "state": "APPROVAL_PENDING"}
    w.asked("op-9", "create", "POST", "/orders", "key-9", kind="ok", status=202, answer=answer)


@bend("I1", "I3")
def never_settled(w: World) -> None:
    w.evidence.rows("order", "orders")[0]["state"] = "CANCEL_PENDING"


@bend("I1")
def left_a_final_state(w: World) -> None:
    for version, state in ((3, "CANCEL_PENDING"), (4, "CANCELLED"), (5, "APPROVED")):
        row = {"order_id": ORDER, "version": str(version), "state": state}
        w.commit("order", ("insert", "order_history", row))
    w.evidence.rows("order", "orders")[0]["version"] = 5


@bend("I1")
def refused_and_made(w: World) -> None:
    w.asked("op-9", "create", "POST", "/orders", "key-9", kind="fail", status=422, answer={"type": "urn:ftgo:x"})
    w.evidence.rows("order", "idempotency_keys").append({"key": f"{CONSUMER}:key-9", "order_id": ORDER})


@bend("I2")
def charged_twice(w: World) -> None:
    entries = w.evidence.rows("accounting", "account_entries")
    entries.append(entries[0] | {"version": 3})
    w.evidence.rows("accounting", "accounts")[0]["authorized"] = 61.0


@bend("I2")
def beyond_the_limit(w: World) -> None:
    row = {"consumer_id": CONSUMER, "authorized": "1000.01", "credit_limit": "1000.00"}
    w.commit("accounting", ("update", "accounts", row))


@bend("I2")
def beyond_the_order_limit(w: World) -> None:
    w.evidence.rows("consumer", "consumers")[0]["order_limit"] = "30.49"


@bend("I2")
def another_price_for_what_stays(w: World) -> None:
    for price in ("12.34", "20.00"):
        lines = [{"menu_item_id": "1", "name": "Soup", "price": price, "quantity": 1}]
        w.commit("order", ("update", "orders", {"id": ORDER, "state": "APPROVED", "line_items": json.dumps(lines)}))


@bend("I3")
def approved_without_ticket(w: World) -> None:
    w.put_table("kitchen", "tickets")


@bend("I4", "I5")
def committed_and_never_published(w: World) -> None:
    _drop_record(w, "approved")


@bend("I4", "I5")
def published_and_never_committed(w: World) -> None:
    w.message("invented", "ftgo.order.OrderApproved", "order.events", "order-7", {})


@bend("I5", "I7")
def neither_handled_nor_dead(w: World) -> None:
    _edit(w, "consumer", "processed_messages", lambda row: None if row["message_id"] == "notify" else row)


@bend("I5")
def poison_forgotten(w: World) -> None:
    w.evidence.nemesis.append({"fault": "poison", "phase": "begin", "id": "poison-1", "wall": 1.0})
    w.message("poison-1", "ftgo.nobody.Knows", "kitchen.commands", "x", {})


@bend("I6")
def overtaken_on_the_topic(w: World) -> None:
    records = w.evidence.records
    created, approved = (next(r for r in records if r.id == name) for name in ("created", "approved"))
    for old, offset in ((created, approved.offset), (approved, created.offset)):
        records[records.index(old)] = dataclasses.replace(old, offset=offset)


@bend("I6")
def handled_out_of_turn(w: World) -> None:
    # The kitchen confirms before it creates; both answers are where they were.
    swap = {"ticket": "confirm", "confirm": "ticket"}
    _edit(w, "kitchen", "processed_messages", lambda row: row | {"message_id": swap[row["message_id"]]})


@bend("I7", "I8")
def answered_twice(w: World) -> None:
    headers = {"sagaid": SAGA, "inreplyto": "verify", "causationid": "verify"}
    w.commit("consumer", w.message("again", "x.Verified", "order.create-order.replies", SAGA, {}, **headers))
    w.commit("order", w.claim("order-sagas", "again"))


@bend("I7")
def mailed_twice(w: World) -> None:
    w.commit("consumer", ("insert", "outbound_mail", {"order_id": ORDER}))


@bend("I7")
def handled_without_effect(w: World) -> None:
    _edit(w, "consumer", "outbound_mail", lambda _: None)


@bend("I8")
def moved_on_by_a_foreign_reply(w: World) -> None:
    headers = {"sagaid": SAGA, "inreplyto": "verify"}
    w.evidence.nemesis.append({"fault": "late-replies", "phase": "begin", "id": "late", "wall": 1.0})
    w.message("late", "x.Verified", "order.create-order.replies", SAGA, {}, **headers)
    w.commit("order", w.claim("order-sagas", "late"))

    def caused_by_late(row: dict[str, Any]) -> dict[str, Any]:
        headers = json.loads(row["headers"])
        if row["message_id"] == "authorize":
            headers["causationid"] = "late"
        return row | {"headers": json.dumps(headers)}

    _edit(w, "order", "outbox", caused_by_late)


@bend("I8")
def stepped_off_the_path(w: World) -> None:
    headers = {"sagaid": SAGA, "sagatype": CREATE}
    w.commit(
        "order", w.message("odd", "x.VerifyConsumer", "consumer.commands", CONSUMER, {"orderId": ORDER}, **headers)
    )
    w.commit("consumer", w.claim("consumer", "odd"))


@bend("I9")
def replica_went_back(w: World) -> None:
    body = {"name": {"firstName": "Ann", "lastName": "Ray"}, "status": "ACTIVE"}
    renamed = ("ftgo.consumer.ConsumerRenamed", "consumer.events", CONSUMER, body)
    w.commit("consumer", w.message("renamed", *renamed, sequence="2"))
    for last_name, version in (("Ray", "2"), ("Lee", "1"), ("Ray", "2")):
        row = {"id": CONSUMER, "first_name": "Ann", "last_name": last_name, "status": "ACTIVE", "version": version}
        w.commit("order", ("update", "consumer_replicas", row))
    w.evidence.rows("consumer", "consumers")[0]["version"] = 2
    w.evidence.rows("order", "consumer_replicas")[0]["version"] = 2


@bend("I9")
def replica_never_caught_up(w: World) -> None:
    w.evidence.rows("consumer", "consumers")[0]["version"] = 2


@bend("I10")
def saga_never_ended(w: World) -> None:
    w.evidence.rows("order", "saga_instances")[0]["finished"] = False


@bend("I10")
def not_at_rest(w: World) -> None:
    w.evidence.end["unrest"] = ["lag of kitchen 3"]


@bend("I10")
def a_slot_keeps_the_log(w: World) -> None:
    w.evidence.end["slots"] = [{"name": "s", "active": False, "wal_status": "extended", "retained": 1 << 30}]


@bend("I11")
def saga_lost_a_change(w: World) -> None:
    _edit(
        w,
        "order",
        "saga_instances",
        lambda row: row | {"version": "2", "step": "other"} if row["version"] == "3" else row,
    )


@bend("I11")
def two_sagas_on_one_order(w: World) -> None:
    first = w.evidence.commits["order"][1]
    row = next(first.rows("saga_instances"))
    changes = [*first.changes, ("insert", "saga_instances", row | {"saga_id": "saga-2"})]
    w.evidence.commits["order"][1] = dataclasses.replace(first, changes=changes)


@bend("I12")
def one_key_two_answers(w: World) -> None:
    answer = {"orderId": ORDER, "state": "APPROVED"}
    w.asked("op-9", "create", "POST", "/orders", "key-1", kind="ok", status=202, answer=answer)


@bend("I13")
def a_read_went_back(w: World) -> None:
    read = {"orderId": ORDER, "state": "APPROVAL_PENDING", "version": 1}
    w.asked("op-9", "read", "GET", f"/orders/{ORDER}", None, kind="ok", status=200, answer=read)


@bend("I15")
def a_dead_letter_for_no_reason(w: World) -> None:
    row = {"consumer": "accounting-consumers", "message_id": "registered", "error": "Traceback\nKeyError: 'x'"}
    w.commit("accounting", ("insert", "dead_letters", row))


def test_a_clean_history_violates_nothing() -> None:
    verdict = judge(one_order().evidence)
    assert verdict.violations == {}
    assert "nothing lost, nothing twice" in report(verdict)


@pytest.mark.parametrize("name", list(_BENDS))
def test_a_violated_invariant_is_found(name: str) -> None:
    invariant, function, others = _BENDS[name]
    world = one_order()
    function(world)
    verdict = judge(world.evidence)
    assert invariant in verdict.violations
    assert set(verdict.violations) <= {invariant, *others}
    assert 1 <= len(verdict.violations[invariant].records) <= 3
    assert verdict.violations[invariant].sentence in report(verdict)


def test_each_invariant_is_violated_by_some_history() -> None:
    assert {invariant for invariant, _, _ in _BENDS.values()} == set(INVARIANTS)


def test_the_smallest_counter_example_is_reported() -> None:
    world = one_order()
    charged_twice(world)  # three records
    beyond_the_limit(world)  # one
    verdict = judge(world.evidence)
    assert len(verdict.violations["I2"].records) == 1
    assert verdict.counts["I2"] > 1


def test_what_was_written_to_files_is_judged_the_same(tmp_path: Path) -> None:
    world = one_order()
    _drop_record(world, "approved")
    evidence = world.evidence
    (tmp_path / "run.json").write_text(json.dumps(evidence.run))
    (tmp_path / "end.json").write_text(json.dumps(evidence.end))
    lines: dict[str, list[Any]] = {"history.jsonl": evidence.history, "nemesis.jsonl": evidence.nemesis}
    for service, commits in evidence.commits.items():
        lines[f"commits-{service}.jsonl"] = [{"lsn": c.lsn, "at": c.at, "changes": c.changes} for c in commits]
        tables = [{"table": t, "row": r} for t, rows in evidence.tables[service].items() for r in rows]
        lines[f"tables-{service}.jsonl"] = tables
    lines["topics.jsonl"] = [dataclasses.asdict(record) for record in evidence.records]
    for name, content in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in content))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"kind": "inv')  # the harness was killed here
    assert check(tmp_path).counts == judge(evidence).counts


def test_the_statistics_of_a_run() -> None:
    world = one_order()
    settled = world.evidence.commits["order"][-1].at
    world.evidence.nemesis += [
        {"fault": "kill", "phase": "begin", "wall": 1.0},
        {"fault": "kill", "phase": "heal", "wall": settled - 2.0},
        {"fault": "duplicates", "phase": "begin", "wall": 1.0},
        {"fault": "all", "phase": "heal", "wall": settled - 1.0},
    ]
    figures = statistics(world.evidence)
    assert (figures.orders, figures.accepted) == (1, 1)
    assert (figures.recoveries, figures.last_recovery) == ([2.0], 1.0)
    assert figures.bound == 1.0  # one fault proves nothing; a duplicate is not one
