"""The invariants of this folder find what they are for."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from evidence import Commit, Evidence
from handling import in_order, once
from violation import Violation

SUBSCRIPTIONS = [
    {"consumer": "kitchen", "service": "kitchen", "topics": ["kitchen.commands"], "types": None, "deduplicates": True}
]


def sent(number: int, name: str, key: str = "a") -> Commit:
    row = {
        "position": str(number),
        "message_id": name,
        "channel": "kitchen.commands",
        "key": key,
        "headers": json.dumps({"type": "CreateTicket"}),
        "body": "\\x" + json.dumps({"ticketId": key}).encode().hex(),
    }
    return Commit("order", number, number, 0.0, [("insert", "outbox", row)])


def handled(number: int, name: str) -> Commit:
    row = {"consumer": "kitchen", "message_id": name}
    return Commit("kitchen", number, number, 0.0, [("insert", "processed_messages", row)])


def evidence(outbox: list[Commit], processed: list[Commit]) -> Evidence:
    run: dict[str, Any] = {"subscriptions": SUBSCRIPTIONS}
    return Evidence(run=run, commits={"order": outbox, "kitchen": processed})


def test_what_is_handled_once_and_in_order_is_no_violation() -> None:
    found = evidence(
        [sent(0, "m0"), sent(1, "m1"), sent(2, "n", "b")], [handled(0, "n"), handled(1, "m0"), handled(2, "m1")]
    )
    assert list(once(found)) == list(in_order(found)) == []


@pytest.mark.parametrize(
    ("check", "processed"),
    [
        pytest.param(once, ["m0"], id="lost"),
        pytest.param(once, ["m0", "m1", "m1"], id="twice"),
        pytest.param(once, ["m0", "m1", "m2"], id="never sent"),
        pytest.param(in_order, ["m1", "m0"], id="overtaken"),
    ],
)
def test_what_is_wrong_is_found(check: Callable[[Evidence], Iterator[Violation]], processed: list[str]) -> None:
    found = evidence([sent(0, "m0"), sent(1, "m1")], [handled(n, name) for n, name in enumerate(processed)])
    assert len(list(check(found))) == 1
