"""Bugs of the HTTP side."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ftgo_messaging.transaction.transactions import GroupCommit, Operation, _settle, run_operations


def response_before_commit() -> None:
    """Answer when the work is done, and commit afterwards: a commit that fails takes back what was promised."""

    async def run(self: Any, batch: Sequence[tuple[Operation[Any], "asyncio.Future[Any]"]]) -> None:
        for step, future in batch:

            async def body(uow: Any, _: Any, step: Any = step, future: Any = future) -> None:
                _settle(future, (await run_operations(uow, [step]))[0])
                await asyncio.sleep(0.15)  # as long as a slow answer takes: most stops of the server fall into one

            try:
                await self._transactions.run(body)
            except Exception as error:
                _settle(future, error)

    GroupCommit._run = run  # type: ignore[method-assign]
