"""What an operator does about a saga that hangs: `ftgo saga` on the running platform."""

import asyncio
import json
import os
import sys
from typing import Any

import pytest
from ftgo_local.scenes.control import Control
from ftgo_local.scenes.stage import Stage, expect

pytestmark = pytest.mark.timeout(300)  # every command is a process of its own


async def _ftgo(control: Control, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `ftgo saga ...` on this copy."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ftgo_local", "saga", *arguments),
        env={**os.environ, "FTGO_STATE_DIR": str(control.directory.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def _saga_of(control: Control, order: str, step: str) -> str | None:
    code, said = await _ftgo(control, "list", "--type", "CreateOrder", "--json")
    expect(code == 0, "a list of sagas", said)
    found: list[dict[str, Any]] = json.loads(said)
    return next((s["saga"] for s in found if s["data"]["orderId"] == order and s["step"] == step), None)


async def test_an_order_whose_payment_is_not_answered_is_turned_back(stage: Stage, control: Control) -> None:
    """Accounting gets both commands when it is back: it authorizes, and gives back; the order is rejected."""
    consumer = await stage.consumer()
    await control.stop("accounting")
    try:
        order = await stage.place(consumer)
        saga: list[str] = []

        async def hangs() -> None:
            found = await _saga_of(control, order, "authorize payment")
            expect(found is not None, "a saga that awaits Accounting", found)
            saga.append(str(found))

        await stage.until(hangs)
        code, said = await _ftgo(control, "compensate", saga[0])
        expect(code == 0, "a saga that turns back", said)
        _, shown = await _ftgo(control, "show", saga[0])
        assert "turned back BY_OPERATOR" in shown
        code, said = await _ftgo(control, "compensate", saga[0])
        assert (code, "cannot turn back any more" in said) == (1, True)
    finally:
        await control.start("accounting")
    rejected = await stage.settled(order, "REJECTED")
    assert rejected["rejection"] == {"reason": "BY_OPERATOR", "service": "accounting"}
    assert (await stage.ticket(order))["state"] == "CANCELLED"
    account = await stage.account(consumer)
    assert account["authorized"] == "0.00"
    assert [e["type"] for e in account["entries"]].count("AUTHORIZATION_REVERSED") == 1
