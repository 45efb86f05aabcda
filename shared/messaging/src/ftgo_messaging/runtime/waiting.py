"""How a job waits for what it needs: it tries again until a deadline, and tells meanwhile for what it waits, and why.

A service needs none of this: its parts go on trying for ever (``loops``), and its readiness tells what is missing.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from ftgo_messaging.runtime.errors import is_transient
from ftgo_messaging.runtime.loops import backoff

T = TypeVar("T")

VARIABLE = "FTGO_WAIT_SECONDS"
DEFAULT_SECONDS = 120.0
TELL_SECONDS = 5.0
"""How often it is told that it still waits."""


class NotThere(Exception):
    """What a job needs did not come in time, or refuses it. The text is a sentence with the cause, and the cure."""


def seconds_to_wait() -> float:
    """FTGO_WAIT_SECONDS, or 120. Exit code 2 with a sentence when it is no number."""
    text = os.environ.get(VARIABLE) or str(DEFAULT_SECONDS)
    try:
        seconds = float(text)
        if not 0 <= seconds < float("inf"):
            raise ValueError
    except ValueError:
        sys.stderr.write(f"{VARIABLE}: a number of seconds from 0, not {text!r}\n")
        raise SystemExit(2) from None
    return seconds


async def wait_for(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    cure: str,
    *,
    passes: Callable[[Exception], bool] = is_transient,
    refusals: tuple[type[Exception], ...] = (),
    each: float = 10.0,
    tell: Callable[[str], object] = lambda text: print(text, file=sys.stderr, flush=True),
) -> T:
    """The result of ``attempt``, which is made again while it fails with what ``passes`` by itself. After ``each``
    seconds it is cut off, and made again if a TimeoutError passes.

    Raises NotThere after FTGO_WAIT_SECONDS, and at once for an error of ``refusals`` that waiting does not cure: a
    wrong password, a missing right. What is neither is raised as it is. ``cure`` is a sentence for both."""
    seconds, loop = seconds_to_wait(), asyncio.get_running_loop()
    began, attempts, told = loop.time(), 0, float("-inf")
    while True:
        attempts += 1
        left = began + seconds - loop.time()
        try:
            async with asyncio.timeout(min(each, max(left, 1.0))):
                return await attempt()
        except Exception as error:
            if not passes(error):
                if isinstance(error, refusals):
                    raise NotThere(f"{what} refuses: {reason(error)}. {cure}") from error
                raise
            waited = loop.time() - began
            if waited >= seconds:
                cause = f"{what} was not there within {seconds:g} s: {reason(error)}."
                raise NotThere(f"{cause} {cure} {VARIABLE} is how long a job waits.") from error
            if waited - told >= TELL_SECONDS:
                told = waited
                tell(f"Waiting for {what} ({waited:.0f} of {seconds:g} s): {reason(error)}")
        await asyncio.sleep(min(backoff(attempts, longest=1.0), seconds - waited))


def reason(error: BaseException) -> str:
    """Why something was not to be reached, in a few words for people."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return f"unknown host ({cause.strerror})"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer"
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error, and those that it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
