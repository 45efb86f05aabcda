"""The witness sees every commit once, in commit order, whatever happens to the server and to itself."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from ftgo_local.platform import Platform
from ftgo_messaging.testing.eventually import eventually
from witness import DatabaseWitness


def _commits(directory: Path) -> list[dict[str, Any]]:
    path = directory / "commits-witnessed.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
async def own() -> AsyncIterator[Platform]:
    """A server of its own: it is stopped, and its slots are nobody else's."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    platform = Platform(path)
    await platform.start_postgres()
    yield platform
    platform.stop()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def dsn(own: Platform) -> str:
    await own.create_databases(["witnessed"])
    dsn = own.postgres.dsn("ftgo_witnessed")
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, text text, big text)")
    await connection.close()
    return dsn


async def test_commits_in_order_of_commit_not_of_writing(dsn: str, tmp_path: Path) -> None:
    witness = DatabaseWitness("witnessed", dsn, tmp_path)
    await witness.start()
    slow, fast = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("INSERT INTO things VALUES (1, 'slow', NULL)")
    await fast.execute("INSERT INTO things VALUES (2, 'fäst', NULL)")
    await transaction.commit()
    await fast.execute("UPDATE things SET text = 'changed' WHERE id = 1")
    await fast.execute("DELETE FROM things WHERE id = 2")
    rolled_back = fast.transaction()
    await rolled_back.start()
    await fast.execute("INSERT INTO things VALUES (3, 'never', NULL)")
    await rolled_back.rollback()
    await slow.close()
    await fast.close()
    await witness.finish()
    assert [c["changes"] for c in _commits(tmp_path)] == [
        [["insert", "things", {"id": "2", "text": "fäst", "big": None}]],
        [["insert", "things", {"id": "1", "text": "slow", "big": None}]],
        [["update", "things", {"id": "1", "text": "changed", "big": None}]],
        [["delete", "things", {"id": "2", "text": None, "big": None}]],
    ]


async def test_an_immediate_stop_of_the_server_neither_loses_nor_repeats_a_commit(
    own: Platform, dsn: str, tmp_path: Path
) -> None:
    witness = DatabaseWitness("witnessed", dsn, tmp_path)
    await witness.start()

    async def write(numbers: range) -> None:
        connection = await asyncpg.connect(dsn)
        for number in numbers:
            await connection.execute("INSERT INTO things VALUES ($1, 'x', $2)", number, "y" * 5000)
        await connection.close()

    async def seen() -> None:
        assert len(_commits(tmp_path)) >= 20

    await write(range(20))
    await eventually(seen)
    await write(range(20, 30))
    own.postgres.stop(immediate=True)
    await own.start_postgres()
    await write(range(30, 40))
    await witness.finish()
    assert [int(c["changes"][0][2]["id"]) for c in _commits(tmp_path)] == list(range(40))
