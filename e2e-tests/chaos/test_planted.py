"""Every planted bug has its case in the self-test, with an invariant of its own, and the library still has what each
of them replaces."""

import subprocess
import sys
from pathlib import Path

from checker import INVARIANTS
from planted import BUGS
from selftest import CASES

HERE = Path(__file__).parent


def test_fifteen_bugs_and_a_case_for_each() -> None:
    cases = {case.bug: case.invariant for case in CASES if case.invariant is not None}
    assert len(BUGS) == 15
    assert cases.keys() == BUGS.keys()
    assert set(cases.values()) <= set(INVARIANTS)
    assert any(case.invariant is None for case in CASES)


def test_all_of_them_can_be_planted() -> None:
    """In a process of their own: they change the library."""
    program = "from planted import BUGS\nfor bug in BUGS.values(): bug()"
    environment = {"PYTHONPATH": str(HERE), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
