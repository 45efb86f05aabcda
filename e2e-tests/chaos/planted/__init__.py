"""Planted bugs: each replaces a function of the library by a wrong one, as somebody may have written it.

They exist in the test build only: ``service.py`` plants one in a service process when FTGO_PLANTED_BUG names it. The
checker has to find each by the invariant that is meant for it; what it does not find, it would not find in earnest.
"""

import os
from collections.abc import Callable

from planted import consuming, relaying, sagas, serving

BUGS: dict[str, Callable[[], None]] = {
    "cursor-by-id": relaying.cursor_by_id,
    "delete-before-publish": relaying.delete_before_publish,
    "skip-locked": relaying.skip_locked,
    "skip-failed-row": relaying.skip_failed_row,
    "flush-last-received": relaying.flush_last_received,
    "ack-before-commit": consuming.ack_before_commit,
    "dedup-apart": consuming.dedup_apart,
    "dedup-without-consumer": consuming.dedup_without_consumer,
    "rewind-first-partition": consuming.rewind_first_partition,
    "forgotten-dead-letter": consuming.forgotten_dead_letter,
    "no-version-guard": consuming.no_version_guard,
    "reply-without-match": sagas.reply_without_match,
    "timeout-without-lock": sagas.timeout_without_lock,
    "recovery-at-start-only": sagas.recovery_at_start_only,
    "response-before-commit": serving.response_before_commit,
}


def plant(service: str) -> None:
    """Plant the bug that the environment names. Call it before anything of the service is imported."""
    if os.environ.get("FTGO_TEST_PATIENCE"):
        sagas.be_impatient(float(os.environ["FTGO_TEST_PATIENCE"]))
    if os.environ.get("FTGO_TEST_SECOND_CONSUMER") and service == "accounting":
        consuming.add_second_consumer()
    bug = os.environ["FTGO_PLANTED_BUG"]
    if bug != "none":
        BUGS[bug]()
