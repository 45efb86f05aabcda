from pathlib import Path
from typing import Any

import pytest
from ftgo_local.errors import PlatformError
from ftgo_local.files import read_json, replace, replace_if_different
from ftgo_local.postgres import Postgres
from ftgo_local.seed import Urls, seed


def test_a_replaced_file_is_for_its_owner_only_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "seed.json"
    file.write_text("old")
    file.chmod(0o644)
    replace(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_content(small_disk: Any) -> None:
    file = small_disk.path / "state.json"
    replace(file, "old")
    small_disk.fill()
    with pytest.raises(OSError, match="No space left"):
        replace(file, "new")
    assert file.read_text() == "old"
    assert sorted(f.name for f in small_disk.path.iterdir()) == ["ballast", "state.json"]


def test_what_is_the_same_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "pg_hba.conf"
    replace_if_different(file, "host all")
    before = file.stat()
    replace_if_different(file, "host all")
    assert file.stat() == before
    replace_if_different(file, "host none")
    assert file.read_text() == "host none"


DAMAGED = ["", "{", "[]", '"text"', '{"postgres": ', '{"postgres": 7}', "\x00" * 80]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_a_sentence_with_a_cure(tmp_path: Path, content: str) -> None:
    file = tmp_path / "passwords.json"
    file.write_text(content)
    with pytest.raises(PlatformError, match=r"passwords\.json is damaged\. Delete it\."):
        read_json(file, dict[str, str], "Delete it.")


def test_a_file_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none", dict[str, str], "") is None


@pytest.mark.parametrize("content", DAMAGED)
async def test_damaged_passwords_and_a_damaged_seed_are_told_and_stay_as_they_are(tmp_path: Path, content: str) -> None:
    passwords, seeds = tmp_path / "postgres.passwords.json", tmp_path / "seed.json"
    for file in (passwords, seeds):
        file.write_text(content)
    with pytest.raises(PlatformError, match=r"postgres\.passwords\.json is damaged.*ftgo reset"):
        Postgres(tmp_path / "postgres", 1).dsn()
    with pytest.raises(PlatformError, match=r"seed\.json is damaged.*Delete it"):
        await seed(Urls(*["http://127.0.0.1:1"] * 4), seeds)
    assert passwords.read_text() == seeds.read_text() == content
