"""``ftgo dead-letters`` on the database of a service: what it shows, what it orders, what it refuses."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from ftgo_local import dead_letters as command
from ftgo_local.cli import app
from ftgo_local.postgres import Postgres
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.letter import State
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import ID, TYPE
from ftgo_messaging.runtime.connection import Connection
from ftgo_messaging.transports.port import Record
from ftgo_service_kit.migrations import run_migrations
from typer.testing import CliRunner, Result

Ftgo = Callable[..., Awaitable[Result]]


@pytest.fixture(scope="module")
async def dsn(postgres: Postgres) -> str:
    dsn = (await postgres.create_service_databases(["letters_command"]))["letters_command"]
    await asyncio.to_thread(run_migrations, "ftgo_kitchen", dsn)
    return dsn


@pytest.fixture
async def ids(dsn: str) -> list[int]:
    """A dead letter, and two that wait behind it."""
    driver = await asyncpg.connect(dsn)
    await driver.execute("TRUNCATE dead_letters")
    for n, state in enumerate([State.DEAD, State.PARKED, State.PARKED]):
        headers = [(ID, new_id().encode()), (TYPE, b"ftgo.kitchen.CreateTicket"), ("raw", b"\xff")]
        received = Record("kitchen.commands", b"order-1", headers, b'{"n": 1}', f"kitchen.commands/3@{n}")
        await dead_letters.write(
            Connection(driver),
            "kitchen",
            received,
            "Traceback ...\nValueError: no",
            parks_key=True,
            state=state,
            identified=True,
        )
    ids = [row[0] for row in await driver.fetch("SELECT id FROM dead_letters ORDER BY id")]
    await driver.close()
    return ids


@pytest.fixture
def ftgo(dsn: str) -> Ftgo:
    async def run(*arguments: object, url: str = dsn) -> Result:
        command = ["dead-letters", *map(str, arguments)]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env={"FTGO_KITCHEN_DATABASE_URL": url})

    return run


async def states(ftgo: Ftgo) -> list[str]:
    every = [word for state in State for word in ("--state", state.value)]
    return [letter["state"] for letter in json.loads((await ftgo("list", "kitchen", "--json", *every)).stdout)]


async def test_a_list_is_a_line_for_each(ftgo: Ftgo, ids: list[int]) -> None:
    lines = (await ftgo("list", "kitchen")).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(i) for i in ids]
    assert lines[0].split("\t")[1:6] == ["DEAD", "1", "kitchen", "ftgo.kitchen.CreateTicket", "order-1"]
    assert lines[0].endswith("\tValueError: no")
    parked = (await ftgo("list", "kitchen", "--state", "PARKED", "--after", ids[1])).stdout.splitlines()
    assert [line.split("\t")[0] for line in parked] == [str(ids[2])]


async def test_one_is_shown_whole(ftgo: Ftgo, ids: list[int]) -> None:
    shown = (await ftgo("show", "kitchen", ids[0])).stdout
    for part in ("kitchen.commands", "raw: \\xff", '{"n": 1}', "Traceback ...", "ValueError: no"):
        assert part in shown
    document = json.loads((await ftgo("show", "kitchen", ids[0], "--json")).stdout)
    assert (document["origin"], document["body"]) == ("kitchen.commands/3@0", '{"n": 1}')
    missing = await ftgo("show", "kitchen", 999999)
    assert (missing.exit_code, missing.stderr) == (1, "There is no dead letter 999999.\n")


async def test_a_redrive_is_ordered(ftgo: Ftgo, ids: list[int]) -> None:
    refused = await ftgo("redrive", "kitchen", *ids)
    assert refused.exit_code == 1
    assert await states(ftgo) == ["DEAD", "PARKED", "PARKED"]  # all or none
    assert (await ftgo("redrive", "kitchen", ids[0])).exit_code == 0
    assert (await ftgo("redrive", "kitchen", ids[0])).exit_code == 0
    assert await states(ftgo) == ["REDRIVE", "PARKED", "PARKED"]


async def test_a_discard_lets_the_next_follow(ftgo: Ftgo, ids: list[int]) -> None:
    done = await ftgo("discard", "kitchen", ids[1], ids[0])
    assert (done.exit_code, done.stdout) == (0, f"Discarded dead letter {ids[0]}, {ids[1]}.\n")
    assert await states(ftgo) == ["DISCARDED", "DISCARDED", "REDRIVE"]


async def test_trouble_ends_with_a_sentence(ftgo: Ftgo, ids: list[int]) -> None:
    away = await ftgo("list", "kitchen", url="postgresql://a:b@127.0.0.1:1/c")
    assert away.exit_code == 1
    assert away.stderr.startswith("The database of kitchen: ")
    assert (await ftgo("list", "kitchen", url="mysql://x")).exit_code == 1
    assert (await ftgo("list", "nobody")).exit_code == 2


async def test_whatever_a_letter_holds_it_is_shown_on_its_line(
    dsn: str, ftgo: Ftgo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Record(
        "kitchen.commands",
        b"[/x]\n\x1b[2J\xff",
        [("\u2028[b]", b"\x00\t"), ("n", None)],
        b"\x1b[2J\nnext",
        "kitchen.commands/0@7",
    )
    driver = await asyncpg.connect(dsn)
    await driver.execute("TRUNCATE dead_letters")
    await dead_letters.write(Connection(driver), "kitchen", odd, "no\x00\r\n[/]", parks_key=True, identified=False)
    letter = (await dead_letters.list_letters(Connection(driver)))[0]
    await driver.close()
    listed = (await ftgo("list", "kitchen")).stdout.splitlines()
    assert [line.split("\t")[5] for line in listed] == [r"[/x]\n\x1b[2J\xff"]
    shown = await ftgo("show", "kitchen", letter.id)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert r"\u2028[b]: \x00\t" in shown.stdout
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command._show_list([letter])
    assert "[/x]" in capsys.readouterr().out
