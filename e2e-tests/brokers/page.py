"""``docs/brokers.md``: tables from the results, between markers; what is around them is written by hand.

<!-- table: NAME -->
...
<!-- end -->
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from facts import FACTS, Facts
from rows import NOTHING, ROWS, link

PAGE = Path(__file__).parents[2] / "docs/brokers.md"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text: str, results: Mapping[str, Any]) -> str:
    """The page with the tables that these results give."""
    made = {name: make(results) for name, make in TABLES.items()}
    return _TABLE.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", text)


def tables_of(text: str) -> set[str]:
    return {found[2] for found in _TABLE.finditer(text)}


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


# -- what was run ------------------------------------------------------------------------------------------------------


def _runs(results: Mapping[str, Any]) -> str:
    return _table(
        ["date", "command", "what it measured", "minutes", "machine"],
        [
            [run["date"], f"`{run['command']}`", _share(results, name), f"{run['seconds'] / 60:.0f}", _machine(run)]
            for name, run in sorted(results["runs"].items())
        ],
    )


def _share(results: Mapping[str, Any], run: str) -> str:
    parts = {
        "suite and figures": [_title(name) for name, entry in _in_order(results["brokers"]) if entry["run"] == run],
        "order, long": [_title(name) for name, entry in _in_order(results["long"]) if entry["run"] == run],
        "the system": ["all below"] if results["system"].get("run") == run else [],
    }
    return "; ".join(f"{part}: {', '.join(names)}" for part, names in parts.items() if names)


def _machine(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']:g} GB, {machine['system']}, "
        f"Python {machine['python']}; load before {machine['load_before']:g}"
    )


# -- the brokers -------------------------------------------------------------------------------------------------------


def _channels(results: Mapping[str, Any]) -> str:
    return _table(
        ["broker", "version", "point-to-point channel", "publish-subscribe channel", "what a dead member had comes"],
        [
            [facts.heading, _version(facts, results), facts.queue, facts.topic, facts.again]
            for facts in FACTS.values()
        ],
    )  # fmt: skip


def _version(facts: Facts, results: Mapping[str, Any]) -> str:
    return str(results["brokers"].get(facts.name, {}).get("version") or NOTHING)


def _factors(results: Mapping[str, Any]) -> str:
    entries = results["brokers"]
    return _table(
        ["factor", "from", *(facts.heading for facts in FACTS.values())],
        [
            [row.title, row.source, *(row.of(facts, entries.get(facts.name, {})) for facts in FACTS.values())]
            for row in ROWS
        ],
    )


def _suite(results: Mapping[str, Any]) -> str:
    lines = []
    for name, entry in _in_order(results["brokers"]):
        outcomes = entry["tests"]
        failed = [test for test, outcome in outcomes.items() if outcome == "failed"]
        skipped = {outcome.partition(" does not promise ")[2] for outcome in outcomes.values()} - {""}
        well = sum(outcome == "passed" for outcome in outcomes.values())
        shown = ", ".join(f"`{test}`" for test in failed) or "none"
        lines.append([_title(name), str(well), shown, ", ".join(sorted(skipped)) or "nothing", f"{entry['seconds']}"])
    return _table(["broker", "passed", "failed", "does not promise", "seconds"], lines)


# -- the long run ------------------------------------------------------------------------------------------------------

_ORDER = {
    "members come, go and release": ("test_order_per_key", "order_of_members"),
    "processes are paused and killed": ("test_order_with_members_killed_and_paused", "order_of_processes"),
}


def _long(results: Mapping[str, Any]) -> str:
    lines = []
    for name, entry in _in_order(results["long"]):
        for what, (test, recorded) in _ORDER.items():
            keyed, control = entry["recorded"].get(recorded), entry["recorded"].get(f"{recorded}_without_a_key")
            if keyed is None:
                continue
            wrong = f"{control['violations']:,} of {control['messages']:,}" if control else NOTHING
            lines.append([_title(name), what, f"{keyed['messages']:,}", f"{keyed['violations']:,}", wrong, link(test)])
    return _table(
        ["broker", "while", "messages", "out of order, with a key", "the control: without one", "test"], lines
    )


# -- the whole system --------------------------------------------------------------------------------------------------


def _system(results: Mapping[str, Any]) -> str:
    lines = []
    for name, entry in _in_order(results["system"].get("brokers", {})):
        rate, p50, against = entry["settled_per_s"], entry["settled_ms"]["p50"], entry.get("of_kafka")
        more = [_against(**against["rate"]), _against(**against["p50"])] if against else ["", ""]
        settled = "backlog" if rate is None else f"{rate:.0f}"
        times = f"{p50:g} / {entry['settled_ms']['p99']:g}"
        lines.append([_title(name), settled, more[0], times, more[1], f"{entry['up_s']:.1f}"])
    head = ["broker", "orders settled/s", "of Kafka's", "POST to settled at 20/s, ms p50 / p99", "of Kafka's p50"]
    return _table([*head, "`ftgo up`, s"], lines)


def _against(ratio: float, well: bool) -> str:
    return f"{ratio:.2f}" if well else f"**{ratio:.2f}**"


# -- names -------------------------------------------------------------------------------------------------------------


def _title(name: str) -> str:
    return FACTS[name].heading if name in FACTS else name


def _in_order(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """As the facts are; what has none comes last."""
    order = list(FACTS)
    return sorted(entries.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


TABLES = {
    "runs": _runs,
    "channels": _channels,
    "factors": _factors,
    "suite": _suite,
    "long": _long,
    "system": _system,
}
