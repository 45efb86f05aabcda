"""docs/brokers.md: its tables are those that docs/brokers.json gives, and what they name is there."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "e2e-tests/brokers"))

import page  # noqa: E402 - a script's module, beside the script
import results as store  # noqa: E402
from facts import FACTS  # noqa: E402
from rows import ROWS  # noqa: E402

TEXT = page.PAGE.read_text()


def test_the_tables_are_those_of_the_results() -> None:
    assert page.written(TEXT, store.read()) == TEXT, "run `make brokers`, or write the page from the results"


def test_every_table_is_on_the_page() -> None:
    assert page.tables_of(TEXT) == set(page.TABLES)


def test_every_test_that_is_linked_ran_or_is_told_not_to_have() -> None:
    """A row of a test that the suite does not have any more would stay "not run" for ever."""
    linked = {name for row in ROWS for name in re.findall(r"`(test_\w+)`", row.source)}
    assert linked
    for name, entry in store.read()["brokers"].items():
        assert linked <= set(entry["tests"]), name


def test_an_emulation_has_no_figure_of_a_server() -> None:
    """Whatever its results say: one entry of the facts is enough."""
    entry = {"tests": {"test_killed_broker": "passed"}, "figures": {"latency_ms": {"p50": 1.0, "p99": 2.0}}}
    for facts in FACTS.values():
        own = [row.of(facts, entry) for row in ROWS if row.own and facts.emulation]
        assert set(own) <= {"–"}
