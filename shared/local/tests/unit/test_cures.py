import errno
import os

import pytest
from ftgo_local.cures import cure


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("FATAL:  could not write lock file \"postmaster.pid\": No space left on device", "make room"),
        ("java.io.IOException: No space left on device", "make room"),
        ("LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use", "taken a port"),
        ("KafkaException: Socket server failed to bind: Address already in use", "taken a port"),
        ("ERROR: [Errno 98] error while attempting to bind on address: address already in use", "taken"),
        ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", "memory"),
        ("OpenJDK 64-Bit Server VM warning: There is insufficient memory for the Java Runtime", "memory"),
        ("FATAL:  could not open file \"global/pg_control\": Permission denied", "another user"),
        ("java.nio.file.AccessDeniedException: data/meta.properties", "another user"),
        ("FATAL:  database files are incompatible with server", "another release"),
        ("alembic.util.exc.CommandError: Can't locate revision identified by '0007'", "another release"),
        ("PANIC:  could not locate a valid checkpoint record", "damaged"),
        ("CorruptRecordException: Found record size 0", "damaged"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state.json"), "make room"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "another user"),
    ],
)  # fmt: skip
def test_the_cure_fits_the_cause(said: object, word: str) -> None:
    assert word in cure(said)


@pytest.mark.parametrize("said", ["", "Traceback ... KeyError: 'x'", OSError(errno.EIO, os.strerror(errno.EIO))])
def test_data_are_not_to_be_thrown_away_for_an_unknown_cause(said: object) -> None:
    assert "reset" not in cure(said)
    assert "log" in cure(said)


def test_only_damaged_or_foreign_data_are_a_reason_to_reset() -> None:
    assert "reset" in cure("invalid page in block 3")
    assert "reset" not in cure("No space left on device; the database system is in recovery: invalid page")
