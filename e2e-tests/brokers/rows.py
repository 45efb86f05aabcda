"""The rows by which one chooses a broker: from where each comes, and what it says of one broker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facts import Facts, Said

ROOT = Path(__file__).parents[2]
SUITE = "shared/messaging/src/ftgo_messaging/testing/suite"
NOTHING = "–"
MEASURED = "measured"
Entry = Mapping[str, Any]
"""What the results have of a broker; empty when it was not measured."""


@dataclass(frozen=True)
class Row:
    """``own``: it says something of the server itself, so an emulation has no such cell."""

    title: str
    source: str
    cell: Callable[[Facts, Entry], str]
    own: bool = False

    def of(self, facts: Facts, entry: Entry) -> str:
        return NOTHING if self.own and facts.emulation else self.cell(facts, entry)


def link(test: str) -> str:
    """The test by its name, as a link from ``docs``. Raises LookupError when there is none."""
    for file in sorted((ROOT / SUITE).glob("*.py")):
        if f"def {test}(" in file.read_text():
            return f"[`{test}`](../{file.relative_to(ROOT)})"
    raise LookupError(test)


def shown_by(title: str, test: str, told: Callable[[Entry], str], *, own: bool = False) -> Row:
    """``told`` is what the page says of a broker that has passed the test."""

    def cell(facts: Facts, entry: Entry) -> str:
        outcome = entry.get("tests", {}).get(test)
        if outcome == "passed":
            return told(entry)
        return {None: "not run", "failed": "**failed**"}.get(outcome, NOTHING)

    return Row(title, link(test), cell, own)


def said(title: str, of: Callable[[Facts], Said], *, own: bool = False) -> Row:
    return Row(title, "its makers", lambda facts, _: f"{of(facts).text} ([source]({of(facts).source}))", own)


def figure(title: str, told: Callable[[Entry], str]) -> Row:
    """``told`` gets the figures."""

    def cell(_: Facts, entry: Entry) -> str:
        try:
            return told(entry.get("figures", {}))
        except KeyError:
            return NOTHING

    return Row(title, MEASURED, cell, own=True)


def _yes(_: Entry) -> str:
    return "yes"


def noted(name: str, form: str = "{}") -> Callable[[Entry], str]:
    return lambda entry: form.format(entry["recorded"][name]) if name in entry.get("recorded", {}) else "yes"


def violations(name: str) -> Callable[[Entry], str]:
    def told(entry: Entry) -> str:
        found = entry.get("recorded", {}).get(name)
        return "yes" if found is None else f"{found['violations']:,} of {found['messages']:,}"

    return told


def _trait(name: str, told: Callable[[Any], str]) -> Callable[[Facts, Entry], str]:
    return lambda _, entry: told(entry["traits"][name]) if "traits" in entry else NOTHING


def _times(name: str) -> Callable[[Entry], str]:
    return lambda figures: f"{figures[name]['p50']:g} / {figures[name]['p99']:g}"


_DISORDER = "out of order, with a key"
_PORT = "[the adapter](../shared/messaging/src/ftgo_messaging/transports/port.py)"

ROWS = [
    said("languages", lambda facts: facts.languages),
    said("standards", lambda facts: facts.standards),
    shown_by(_DISORDER, "test_order_with_members_killed_and_paused", violations("order_of_processes")),
    shown_by("the control: without one", "test_control_of_processes_without_a_key",
           violations("order_of_processes_without_a_key")),
    shown_by("at least once: seconds until another member gets what a killed one had", "test_a_killed_member",
           noted("takeover_seconds")),
    shown_by("confirmed messages after `kill -9` of the server", "test_killed_broker", noted("confirmed_after_kill"),
           own=True),
    figure("fsync calls for each confirmed message", lambda figures: f"{figures['syncs_per_message']:.2g}"),
    Row("the server's setting", "[its class](../shared/local/src/ftgo_local/brokers)", lambda facts, _: facts.setting,
        own=True),
    said("the disk", lambda facts: facts.disk, own=True),
    shown_by("a subscriber that was away gets what came", "test_durable_subscriber", _yes),
    shown_by("one that nobody knew gets what was there before", "test_replay", _yes),
    shown_by("competing consumers: messages of each of three members", "test_competing_members", noted("competing")),
    Row("who gives lanes to members", _PORT, _trait("assigns", lambda own: "the broker" if own else "the leases")),
    Row("members that work at most, for a channel and consumer", _PORT, _trait("lanes", str)),
    shown_by("seconds until others have the lanes of one that stops", "test_clean_stop", noted("handover_seconds")),
    Row("largest message, bytes", _PORT, _trait("max_bytes", lambda size: f"{size:,}")),
    shown_by("a slow reader before many messages grows by", "test_back_pressure", noted("growth_with_waiting")),
    figure("a lone message, publish to receipt, ms p50 / p99", _times("latency_ms")),
    figure("publish to confirmation, ms p50 / p99", _times("confirmed_ms")),
    figure("1 kB messages sent/s, confirmed", lambda figures: f"{figures['sent_per_s']:,}"),
    figure("1 kB messages received/s, settled", lambda figures: f"{figures['received_per_s']:,}"),
    figure("start of the server, s: first / next", lambda figures: "{} / {}".format(*figures["start_s"])),
    figure("its memory, MB: idle / after all this", lambda figures: "{} / {}".format(*figures["memory_mb"])),
]  # fmt: skip
