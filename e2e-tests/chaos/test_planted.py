"""Every planted bug has its case in the self-test, with an invariant of its own, and the library still has what each
of them replaces."""

import os
import subprocess
import sys
from pathlib import Path

from checker import INVARIANTS
from planted import BUGS
from selftest import CASES

HERE = Path(__file__).parent
LIBRARY = HERE.parents[1] / "shared/messaging"


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


def test_the_reconciler_without_a_lock_still_reminds() -> None:
    """It writes what it has read: else it would only fail, in every round, and break nothing. Under the library's own
    test, which the bug is meant to pass."""
    test = LIBRARY / "tests/integration/test_sagas_database.py::test_deadlines_are_the_databases_business"
    program = (
        "import sys, pytest; from planted import BUGS; BUGS['timeout-without-lock'](); "
        "quiet = ['-q', '-p', 'no:cacheprovider', '-W', 'ignore::pytest.PytestAssertRewriteWarning']; "
        f"sys.exit(pytest.main([*quiet, {str(test)!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
