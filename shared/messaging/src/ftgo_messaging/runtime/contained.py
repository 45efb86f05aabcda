"""Keeps what lies beyond ``Exception`` inside of the work that raised it.

A CancelledError ends a task in silence, and so does whoever awaits something that somebody else cancels: a shared
task, a future of a pool. SystemExit ends the process. A loop that works for others must end by neither: one message
would silence its consumer, and come again after every restart.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Misdirected(Exception):
    """A CancelledError, a SystemExit or the like that nobody meant for the task that met it: a bug like any other."""


@contextmanager
def contained() -> Iterator[None]:
    """What the block raises is an ``Exception``, or it is meant for this task: its own cancellation, its end when the
    loop drops it (GeneratorExit), and KeyboardInterrupt. Everything else becomes Misdirected. Needs a running task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        raise Misdirected("something that was awaited here has been cancelled, and not by whoever runs this") from error
    except GeneratorExit as error:
        if asyncio.current_task(loop) is not task:
            raise
        raise Misdirected(repr(error)) from error
    except BaseException as error:
        raise Misdirected(repr(error)) from error
