"""The three families of error. A handler's exception decides what happens to its message.

=====================  =========================================================================
DomainError            a business "no": the handler's writes are discarded, the message counts as
                       handled; a command is answered with a failure reply, an HTTP caller gets a 4xx
TransientError         the surroundings failed (database away, lock not granted): everything rolls
                       back and the message is tried again later; nothing is lost, nothing is skipped
anything else          a bug or a poison message: it becomes a dead letter (HTTP: a 500)
=====================  =========================================================================

Errors of the database and of the network count as transient without being TransientErrors: see ``is_transient``. An
outage is waited for, however long it lasts. The database's limit on a statement's time is transient as well, but may be
due to the message itself: see ``is_time_limit``. What lies beyond ``Exception`` (a cancellation, SystemExit) is for
``contained``.
"""

import errno
import socket
import ssl
from collections.abc import Mapping

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class DomainError(Exception):
    """A rule of the business says no. ``slug`` is stable and part of the public contract."""

    slug = "refused"
    status = 409

    def __init__(self, detail: str = "", **extra: object) -> None:
        super().__init__(detail or self.slug)
        self.detail = detail or self.slug
        self.extra: Mapping[str, object] = extra


class Told(Exception):
    """The text is a sentence with cause and cure, for whoever runs the system: a stack trace tells nothing more."""


def trace_of(error: BaseException) -> BaseException | None:
    """The error whose stack trace belongs into a log, beside its text; None for one that needs none."""
    return None if isinstance(error, Told) else error


class TransientError(Exception):
    """Try again later; the message or request itself is not to blame."""


class StaleAggregate(TransientError):
    """A row changed between load and flush although it was to be locked. Running again reads the new state."""


class Undecodable(Exception):
    """Bytes that are no message of this channel: bad headers, bad body, or an unknown type."""


class Overloaded(Exception):
    """Too much waits already. Nothing was written; try again after ``retry_after`` seconds."""

    def __init__(self, reason: str, retry_after: int = 1) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


# SQLSTATE classes and codes after which the same transaction may well succeed.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT_CLASSES = ("08", "40", "53", "57")  # connection, rollback (serialisation, deadlock), resources, operator
_TRANSIENT_CODES = ("55P03", "25P03", "25P04")  # lock not available, idle-in-transaction and transaction time-out


# A file that is missing, or may not be read, is an OSError too, and no outage: it will be missing the next time.
_NETWORK_ERRNOS = frozenset(
    {
        errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL,
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN, errno.ENOTCONN, errno.ETIMEDOUT,
        # No socket can be opened just now.
        errno.EMFILE, errno.ENFILE, errno.ENOBUFS,
    }
)  # fmt: skip


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of a database error, or None. Never match on message texts: they are translated."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlstate", None) or getattr(getattr(original, "__cause__", None), "sqlstate", None)
    return str(code) if code else None


def is_race(error: BaseException) -> bool:
    """Whether a row was there already (23505). Two transactions that both found no row and both inserted it look so:
    run again, the second one finds it. The same after some repetitions is no race but a bug."""
    return sqlstate(error) == "23505"


def is_time_limit(error: BaseException) -> bool:
    """Whether the database has cut a statement short (57014: ``statement_timeout``, or an operator). The next attempt
    may be faster; but a statement that needs too long for this very message will need too long every time. So whoever
    repeats it does so some times, not for ever.

    No other transient error of the database is of this kind. A lock (55P03), a deadlock (40P01) or a serialisation
    failure (40001) is due to others; resources (53), a stop of the server (57P) and broken connections (08) are due to
    the server. A time limit on transactions (25P03, 25P04) closes the connection, and looks like a broken one."""
    return sqlstate(error) == "57014"


def is_outage(error: BaseException) -> bool:
    """Whether the surroundings failed, and the work itself cannot be the reason."""
    return is_transient(error) and not is_time_limit(error)


def is_transient(error: BaseException) -> bool:
    """Whether trying the same work again, unchanged, can succeed: the database or the network failed.

    A TimeoutError counts, also one of a handler's own ``asyncio.timeout``: nearly always it waited for the network. A
    group of errors (of a TaskGroup) counts when each of them does."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each) for each in error.exceptions)
    if isinstance(error, TransientError | PoolTimeout | TimeoutError):
        return True
    if isinstance(error, OSError):
        return _is_of_the_network(error)
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        code = sqlstate(error)
        if code is not None:
            return code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES
        # No SQLSTATE: the driver failed before the server could answer (socket gone, protocol cut).
        return isinstance(error, OperationalError | InterfaceError)
    code = sqlstate(error)
    return code is not None and (code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES)


def _is_of_the_network(error: OSError) -> bool:
    if isinstance(error, ConnectionError | socket.gaierror | socket.herror | ssl.SSLError):
        return True
    if error.errno is None:
        # asyncio's and uvloop's way to say that a host has several addresses and none could be reached.
        return type(error) is OSError and str(error).startswith("Multiple exceptions: ")
    return error.errno in _NETWORK_ERRNOS
