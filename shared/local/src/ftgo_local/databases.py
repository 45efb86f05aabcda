"""The database of a service, for the commands that work on it: that of the running platform, or of any other."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
import typer
from ftgo_messaging import DomainError
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.runtime.errors import is_transient, sqlstate

from ftgo_local.console import failure_lines
from ftgo_local.errors import NotRunningError, PlatformError
from ftgo_local.platform import Platform
from ftgo_local.progress import failure
from ftgo_local.state import StateDirectory, state_directory

T = TypeVar("T")


def database_url(service: str, offset: int) -> str:
    """FTGO_<SERVICE>_DATABASE_URL; else that of the running platform. Raises PlatformError."""
    variable = f"FTGO_{service.upper()}_DATABASE_URL"
    url = os.environ.get(variable)
    if url is None:
        directory = StateDirectory(state_directory(offset))
        state = directory.read()
        if state is None or not directory.is_locked():
            raise NotRunningError("ftgo is not up.", f"`ftgo up` starts it; {variable} names a database elsewhere.")
        url = Platform(directory.path, ports=state.ports).postgres.service_dsn(service)
    scheme, separator, rest = url.partition("://")
    if scheme not in {"postgres", "postgresql", "postgresql+asyncpg"} or not separator:
        raise PlatformError(f"{variable} is no postgresql:// address.", f"Set {variable} to that of {service}.")
    return f"postgresql://{rest}"


@contextmanager
def sentences(service: str) -> Iterator[None]:
    """Errors end the command with a sentence and code 1; 3 when nothing runs."""
    try:
        yield
    except DomainError as refusal:
        print(refusal.detail, file=sys.stderr)
        raise typer.Exit(1) from None
    except PlatformError as error:
        print("\n".join(failure_lines(failure("", error))), file=sys.stderr)
        raise typer.Exit(3 if isinstance(error, NotRunningError) else 1) from None
    except Exception as error:
        if not is_transient(error) and sqlstate(error) is None:
            raise
        print(f"The database of {service}: {error or type(error).__name__}", file=sys.stderr)
        raise typer.Exit(1) from None


def in_transaction(service: str, offset: int, body: Callable[[Connection], Awaitable[T]]) -> T:
    """Run ``body`` in one transaction of the service's database, with ``sentences`` for errors."""

    async def run() -> T:
        driver = await asyncpg.connect(database_url(service, offset), timeout=5, command_timeout=30)
        try:
            async with driver.transaction():
                return await body(Connection(driver))
        finally:
            await driver.close()

    with sentences(service):
        return asyncio.run(run())
