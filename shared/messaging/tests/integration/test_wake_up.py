"""The wake-up across processes: two engines stand for two processes, the poll interval is far too long to help."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.outbox import wake_up as wake_up_module
from ftgo_messaging.outbox.relay import WakeUp
from ftgo_messaging.outbox.wake_up import CHANNEL, Listener, Notifier
from ftgo_messaging.testing.eventually import eventually
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@pytest.fixture
async def dsn(postgres: Postgres) -> str:
    return (await postgres.create_service_databases(["wake_up"]))["wake_up"]


@asynccontextmanager
async def process(dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"), pool_size=2)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def running(*loops: Notifier | Listener) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def listening(listener: Listener) -> None:
    assert listener.listening


async def test_a_ring_reaches_another_process_and_bursts_are_few(dsn: str) -> None:
    async with process(dsn) as one, process(dsn) as other:
        notifier, wake_up = Notifier(one), WakeUp()
        listener = Listener(other, wake_up)
        async with running(notifier, listener):
            await eventually(lambda: listening(listener))
            await wake_up.wait(1)  # what listening itself rings
            notifier.ring()
            assert await wake_up.wait(30)

            began = asyncio.get_running_loop().time()
            before = notifier.sent
            for _ in range(2000):
                notifier.ring()
                await asyncio.sleep(0)
            assert await wake_up.wait(30)
            passed = asyncio.get_running_loop().time() - began
            assert notifier.sent - before <= 2 + passed / 0.01

            async def counted() -> None:
                assert notifier.sent >= 2

            await eventually(counted)


async def test_lost_connections_are_made_again(
    dsn: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wake_up_module, "_PING_SECONDS", 1000)  # the loss itself is noticed
    admin = await asyncpg.connect(postgres.dsn())
    async with process(dsn) as one, process(dsn) as other:
        notifier, wake_up = Notifier(one), WakeUp()
        listener = Listener(other, wake_up)
        async with running(notifier, listener):
            await eventually(lambda: listening(listener))
            await wake_up.wait(1)  # what listening itself rings
            notifier.ring()
            assert await wake_up.wait(30)
            killed = await admin.fetch(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN "
                "('ftgo-notify', 'ftgo-listen')"
            )
            assert len(killed) == 2

            async def heard_again() -> None:
                notifier.ring()
                assert listener.listening
                gone = await admin.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)", [r["pid"] for r in killed]
                )
                assert gone == 0
                assert await wake_up.wait(0.5)

            await eventually(heard_again, within=30)
    assert "the server closed the connection" in "".join(capfd.readouterr())
    await admin.close()


@pytest.mark.embedded("it stops a process of the server")
async def test_a_connection_that_has_fallen_silent_is_given_up(
    dsn: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_up_module, "_PING_SECONDS", 1)
    admin = await asyncpg.connect(postgres.dsn())
    listeners = "SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'ftgo-listen' AND pid <> $1"
    async with process(dsn) as one:
        listener = Listener(one, WakeUp())
        async with running(listener):
            await eventually(lambda: listening(listener))
            silent = await admin.fetchval(listeners, 0)
            os.kill(silent, signal.SIGSTOP)
            try:

                async def another() -> None:
                    assert await admin.fetchval(listeners, silent)

                await eventually(another, within=30)
            finally:
                os.kill(silent, signal.SIGCONT)
    await admin.close()


async def test_whoever_cannot_reach_the_database_still_rings_without_waiting() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody:x@127.0.0.1:1/nowhere")
    notifier = Notifier(engine)
    task = asyncio.create_task(notifier.run())
    for _ in range(100):
        notifier.ring()
        await asyncio.sleep(0)
    assert notifier.sent == 0
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await engine.dispose()


async def test_the_channel_is_one_that_a_plain_client_hears(dsn: str) -> None:
    """An operator can listen in with psql: LISTEN ftgo_outbox."""
    async with process(dsn) as one:
        heard = asyncio.Event()
        client = await asyncpg.connect(dsn)
        await client.add_listener(CHANNEL, lambda *_: heard.set())
        notifier = Notifier(one)
        async with running(notifier), asyncio.timeout(30):
            notifier.ring()
            await heard.wait()
        await client.close()
