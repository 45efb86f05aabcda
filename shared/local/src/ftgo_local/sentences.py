"""How a command ends when something is wrong."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ftgo_local.console import failure_lines
from ftgo_local.cures import cure
from ftgo_local.errors import AlreadyRunningError, NotRunningError, PlatformError
from ftgo_local.progress import failure


@contextmanager
def sentences() -> Iterator[None]:
    """Errors of the platform as sentences and exit codes; never a stack trace."""
    try:
        yield
    except PlatformError as error:
        if not error.told:
            print("\n".join(failure_lines(failure("", error))), file=sys.stderr)
        raise typer.Exit(3 if isinstance(error, AlreadyRunningError | NotRunningError) else 1) from None
    except OSError as error:  # a full disk, a folder of somebody else's
        print(f"{error}\nWhat to do: {cure(error)}", file=sys.stderr)
        raise typer.Exit(1) from None
