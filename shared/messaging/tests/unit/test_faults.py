"""The planted faults of `make mutants` still have their place in the code, and the tests that notice them exist."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
sys.path.append(str(ROOT / "shared/messaging/mutants"))

from faults import PLANTED, Fault  # noqa: E402
from mutant import TESTS  # noqa: E402


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_it_has_its_place_and_its_test(fault: Fault) -> None:
    mutant = fault.mutant(ROOT)
    compile(mutant.code, mutant.name, "exec")
    file, name = fault.test.split("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / TESTS / f"{file}.py").read_text(), re.MULTILINE)
