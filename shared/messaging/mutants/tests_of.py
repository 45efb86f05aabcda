"""Which fast tests are asked about a module, those that need no server first."""

from pathlib import Path

_TESTS = {
    "outbox/pgoutput": ("unit/test_pgoutput",),
    "outbox": ("unit/test_relay_parts", "unit/test_pgoutput", "integration/test_wake_up", "integration/test_log_tailing"),
    "consumer": ("unit/test_messages", "integration/test_dead_letters", "integration/test_transactions"),
    "inbox": ("unit/test_messages", "integration/test_dead_letters", "integration/test_transactions"),
    "sagas": ("unit/test_sagas", "integration/test_sagas_database"),
    "unit_of_work": ("unit/test_sagas", "integration/test_transactions"),
    "transactions": ("integration/test_transactions",),
}


def tests_of(module: Path) -> tuple[str, ...]:
    """``module`` below the library's package. The longest entry that it begins with counts."""
    best = max((name for name in _TESTS if str(module).startswith(name)), key=len)
    return tuple(f"shared/messaging/tests/{test}.py" for test in _TESTS[best])
