"""Which errors are worth another attempt."""

import asyncio
import errno
import gzip
import socket
import ssl
from pathlib import Path

import pytest
from ftgo_messaging.runtime.errors import DomainError, StaleAggregate, is_transient
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class OfTheDatabase(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("Verklemmung entdeckt")
        self.sqlstate = sqlstate


NETWORK = [
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    ConnectionResetError(),
    BrokenPipeError(),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    ssl.SSLError("wrong version"),
    TimeoutError(),
    ConnectionAbortedError(),
    *(OSError(code, "") for code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EMFILE)),
    OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 101] Network is unreachable"),
]
DATABASE = [
    *(OfTheDatabase(code) for code in ("08006", "40001", "40P01", "53300", "57P01", "55P03")),
    OperationalError("SELECT 1", None, Exception("socket gone")),
    DBAPIError("SELECT 1", None, Exception(), connection_invalidated=True),
    PoolTimeout(),
    StaleAggregate(),
]
BUGS = [
    FileNotFoundError(errno.ENOENT, "/no/such/template.txt"),
    PermissionError(errno.EACCES, "secret"),
    IsADirectoryError(errno.EISDIR, "folder"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EINVAL, "Invalid argument"),
    OSError("cannot identify image file"),
    gzip.BadGzipFile("Not a gzipped file"),
    UnicodeDecodeError("utf-8", b"", 0, 1, ""),
    ProgrammingError("SELECT", None, Exception()),
    OfTheDatabase("23505"),
    OfTheDatabase("42P01"),
    DomainError(),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("error", [*NETWORK, *DATABASE], ids=repr)
def test_the_network_and_the_database_may_come_back(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_everything_else_would_fail_again(error: BaseException) -> None:
    assert not is_transient(error)


def test_a_missing_file_is_no_outage(tmp_path: Path) -> None:
    with pytest.raises(OSError) as missing:
        (tmp_path / "template.txt").read_text()
    assert not is_transient(missing.value)


async def test_a_port_where_nobody_listens_is_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(OSError) as refused:
            await asyncio.open_connection(*taken.getsockname())
    assert is_transient(refused.value)


def test_a_group_is_worth_it_when_each_of_its_errors_is() -> None:
    assert is_transient(ExceptionGroup("", [ConnectionResetError(), ExceptionGroup("", [TimeoutError()])]))
    assert not is_transient(ExceptionGroup("", [ConnectionResetError(), ValueError()]))
