"""Where Kafka's jars are found and put, with jars of this test's own: nothing is downloaded."""

import hashlib
import os
from pathlib import Path

import pytest
from ftgo_local import jars
from ftgo_local.errors import PlatformError

CONTENT = b"a jar"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven cache with the one jar that is locked."""
    lock = tmp_path / "kafka.lock"
    lock.write_text(f"org.example:thing:1.0 {hashlib.sha256(CONTENT).hexdigest()}\n")
    monkeypatch.setattr(jars, "LOCKS", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("M2_REPO", raising=False)
    folder = tmp_path / "home" / ".m2" / "repository" / "org" / "example" / "thing" / "1.0"
    folder.mkdir(parents=True)
    (folder / "thing-1.0.jar").write_bytes(CONTENT)
    return tmp_path / "home" / ".m2" / "repository"


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_in_a_complete_cache_nothing_is_written(cache: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    assert jars.jars(tmp_path / "spare") == [cache / "org/example/thing/1.0/thing-1.0.jar"]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "{closed}"])
def test_without_a_home_the_jars_are_below_the_spare_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    spare = tmp_path / "spare"
    jar = spare / "org/example/thing/1.0/thing-1.0.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(CONTENT)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    if home == "{closed}" and os.geteuid() == 0:
        pytest.skip("no folder is closed to root")
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("M2_REPO", "")  # restored at the end, whatever it is set to
    monkeypatch.delenv("M2_REPO")
    if home is not None:
        monkeypatch.setenv("HOME", home.format(closed=closed))
    assert jars.jars(spare) == [jar]


def test_a_name_that_java_would_cut_is_told(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a:b"
    cache.rename(odd)
    monkeypatch.setenv("M2_REPO", str(odd))
    with pytest.raises(PlatformError, match="Java cannot read"):
        jars.jars(tmp_path / "spare")
