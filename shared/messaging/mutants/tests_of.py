"""Which fast tests are asked about a module, those that need no server first."""

from pathlib import Path

from mutant import TESTS

# Servers that are stopped and started, a thousand records through Kafka: too slow to be asked a thousand times.
LEFT_OUT = "not (one_poison_in_a_thousand or a_restarted_database or a_crash_of_the_database)"

_CONTRACT = (
    "integration/test_relay_contract::test_a_lower_position_that_commits_later_is_published_too",
    "integration/test_relay_contract::test_a_crash_between_publish_and_delete_repeats_and_loses_nothing",
    "integration/test_relay_contract::test_a_restarted_relay_goes_on_where_it_was",
)
_TESTS: dict[str, tuple[str, ...]] = {
    "consumer": (
        "unit/test_plan",
        "unit/test_envelope",
        "unit/test_tasks",
        "unit/test_messages",
        "integration/test_one_database",
        "integration/test_dead_letters",
        "integration/test_transactions",
        "integration/test_contained",
    ),
    "consumer/batch": (
        "unit/test_tried",
        "integration/test_dead_letters",
        "integration/test_one_database",
        "integration/test_transactions",
        "integration/test_any_record::test_what_cannot_be_kept_whole_is_kept_without_what_may_be_the_reason",
    ),
    "consumer/envelope": ("unit/test_envelope", "unit/test_plan"),
    "consumer/handlers": ("unit/test_handlers",),
    "consumer/plan": ("unit/test_plan",),
    "consumer/redrive": ("integration/test_dead_letters", "integration/test_one_database"),
    "consumer/dead_letters": ("unit/test_plan", "integration/test_one_database", "integration/test_dead_letters"),
    "consumer/duplicates": ("unit/test_plan", "integration/test_one_database", "integration/test_dead_letters"),
    "consumer/letter": ("unit/test_letter",),
    "outbox": ("unit/test_relay_parts", "integration/test_delivery", "integration/test_transactions"),
    "outbox/bound": ("integration/test_outbox_bound",),
    "outbox/log_": ("unit/test_relay_parts", "unit/test_log_rows", "integration/test_log_tailing", *_CONTRACT),
    "outbox/opening": _CONTRACT,
    "outbox/pgoutput": ("unit/test_pgoutput",),
    "outbox/reconciliation": ("unit/test_log_rows", "integration/test_log_tailing", *_CONTRACT),
    "outbox/slot": ("unit/test_slot", "integration/test_log_tailing"),
    "outbox/wake_up": ("integration/test_wake_up",),
    "outbox/writer": ("unit/test_messages", "unit/test_envelope", "unit/test_gathering", "integration/test_delivery"),
    "sagas": ("unit/test_sagas", "integration/test_sagas_database"),
    "transaction/transactions": (
        "integration/test_one_database",
        "integration/test_transactions",
        "integration/test_contained",
    ),
    "transaction/unit_of_work": (
        "unit/test_messages",
        "unit/test_sagas",
        "integration/test_one_database",
        "integration/test_transactions",
    ),
}


def tests_of(module: Path) -> tuple[str, ...]:
    """``module`` below the library's package. The longest entry that it begins with counts."""
    best = max((name for name in _TESTS if str(module).startswith(name)), key=len)
    tests = (test.partition("::") for test in _TESTS[best])
    return tuple(f"{TESTS / file}.py{separator}{name}" for file, separator, name in tests)
