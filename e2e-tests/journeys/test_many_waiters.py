"""A thousand clients wait for one order that does not settle. Everybody else is served as if they were not there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from ftgo_local.scenes.control import Control
from ftgo_local.scenes.stage import Stage, expect

HALF = 500
OTHERS = 30


@pytest.mark.timeout(300)
async def test_a_thousand_waiters_are_in_nobodys_way(stage: Stage, control: Control) -> None:
    consumer = await stage.consumer()
    pending = await stage.place(consumer)
    await stage.settled(pending)
    await _change(control, pending, 3, "APPROVAL_PENDING")  # no saga will settle it
    log = control.directory.logs / "order.log"
    said_before = log.stat().st_size
    alone = await _order(stage)
    async with _waiters(stage, pending) as answers:
        await stage.until(lambda: _waiting(stage, 2 * HALF))
        await stage.until(lambda: _refused(stage, pending))
        beside = await _order(stage)
        # Once for all, and not once for each of a thousand. The times are of a busy machine: only the kind is told.
        assert beside < max(5 * alone, 5.0)
        await _change(control, pending, 4, "REJECTED")
        for answer in await asyncio.gather(*answers):
            assert answer.startswith(b"HTTP/1.1 200")
            assert b'"REJECTED"' in answer
    await stage.until(lambda: _waiting(stage, 0))
    with log.open("rb") as file:
        file.seek(said_before)
        said = file.read()
    assert b"QueuePool" not in said
    assert b"Traceback" not in said


async def _order(stage: Stage) -> float:
    """Seconds until so many orders, placed at once, are all approved."""
    consumers = [await stage.consumer() for _ in range(OTHERS)]
    began = time.monotonic()
    orders = await asyncio.gather(*(stage.place(consumer) for consumer in consumers))
    for order in orders:
        await stage.until(lambda order=order: _approved(stage, order))  # type: ignore[misc]
    return time.monotonic() - began


async def _approved(stage: Stage, order: str) -> None:
    state = (await stage.order(order))["state"]
    expect(state == "APPROVED", "an approved order", state)


async def _waiting(stage: Stage, number: int) -> None:
    found = await stage.metric("order", "ftgo_order_waiting")
    expect(found == number, f"{number} clients that wait", found)


async def _refused(stage: Stage, order: str) -> None:
    answer = await stage.client.get(f"{stage.urls.order}/orders/{order}", headers={"Prefer": "wait=1"})
    expect(answer.status_code == 503, "one more to be refused", answer.status_code)
    assert answer.headers["retry-after"] == "1"


async def _change(control: Control, order: str, version: int, state: str) -> None:
    """Behind the back of the service, as another process of it would."""
    connection = await asyncpg.connect(control.dsn("order"))
    try:
        async with connection.transaction():
            await connection.execute("UPDATE orders SET state = $2, version = $3 WHERE id = $1", order, state, version)
            history = "INSERT INTO order_history (order_id, version, state, at) VALUES ($1, $2, $3, now())"
            await connection.execute(history, order, version, state)
    finally:
        await connection.close()


@asynccontextmanager
async def _waiters(stage: Stage, order: str) -> AsyncIterator[list["asyncio.Task[bytes]"]]:
    """Half of them streams, half GETs that wait: each yields its whole answer. On bare sockets: a thousand of them are
    to be no work for the test."""
    url = httpx.URL(f"{stage.urls.order}/orders/{order}")
    begin = asyncio.Semaphore(50)

    async def ask(path: str, header: str) -> bytes:
        while b'"REJECTED"' not in (answer := await once(path, header)) and answer.startswith(b"HTTP/1.1 200"):
            pass  # it has waited for 30 seconds
        return answer

    async def once(path: str, header: str) -> bytes:
        async with begin:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n{header}\r\n".encode())
            await writer.drain()
        try:
            return await reader.read()
        finally:
            writer.close()

    answers = [asyncio.create_task(ask(f"{url.path}/events", "")) for _ in range(HALF)]
    answers += [asyncio.create_task(ask(url.path, "Prefer: wait=30\r\n")) for _ in range(HALF)]
    try:
        yield answers
    finally:
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
