"""The conformance suite on one broker, by pytest: what became of each test, and the figures that the tests recorded."""

import json
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facts import FACTS
from suites import conformance, pytest

LONG = {"FTGO_BROKER_PER_ENTITY": "2500", "FTGO_BROKER_AWAY": "30"}
"""A hundred thousand messages while members come, go, are paused and killed; the broker away for half a minute."""
LONG_TESTS = "order or control or broker_away"
TEST_SECONDS, LONG_TEST_SECONDS = 180, 1800


def files_of(broker: str) -> list[Path]:
    """The files in which this broker's transport is put to the test."""
    return conformance(FACTS[broker].tests or broker if broker in FACTS else broker)


def class_of(broker: str) -> str | None:
    """The name of the class with which this broker's transport passes the suite."""
    if broker in FACTS and FACTS[broker].suite:
        return FACTS[broker].suite
    text = "".join(file.read_text() for file in files_of(broker))
    found = re.search(r"^class (\w+)\(TransportSuite\)", text, re.MULTILINE)
    return found[1] if found else None


def judge(broker: str, *, long: bool = False, within: float | None = None) -> dict[str, Any]:
    """``tests``: the outcome of each; ``recorded``: what they noted. After ``within`` seconds no other test begins."""
    chosen = " and ".join(filter(None, [class_of(broker), f"({LONG_TESTS})" if long else ""]))
    bounds = ["--timeout", str(LONG_TEST_SECONDS if long else TEST_SECONDS)]
    bounds += [] if within is None else [f"--session-timeout={within:.0f}"]
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "recorded.json"
        settings = {"FTGO_BROKER_RESULTS": str(noted), **(LONG if long else {})}
        began = time.monotonic()
        result = pytest(broker, files_of(broker), ["-k", chosen, *bounds], settings)
        recorded = _of_one(json.loads(noted.read_text()) if noted.exists() else {})
    found = {"tests": dict(sorted(result.outcomes.items())), "recorded": recorded}
    return {**found, "seconds": round(time.monotonic() - began)}


def _of_one(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """They are filed under the name in the traits, of the one broker that ran."""
    return {name: value for each in recorded.values() for name, value in sorted(each.items())}
