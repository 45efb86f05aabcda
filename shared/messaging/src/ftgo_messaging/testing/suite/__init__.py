"""The parts of the conformance suite: see ``testing.transport_suite``."""

import pytest

# Before they are imported, so that a failed assertion tells its values.
for _part in ("demands", "faults", "fidelity", "hands", "hardships", "kinds", "order", "services"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}")
