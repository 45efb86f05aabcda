import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftgo_local.errors import PlatformError
from ftgo_local.unprivileged import drop_privileges, owned_directory, reachable_programs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder that only root can enter, as a checkout under /root is."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of these tests: everybody may enter it, and it is gone afterwards."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(path))
    yield path
    shutil.rmtree(path)


def run(*command: str) -> int:
    return subprocess.run(command, check=False, cwd="/", **drop_privileges()).returncode


def test_data_below_a_closed_folder_are_placed_elsewhere_and_linked(closed: Path, open_folder: Path) -> None:
    (closed / "postgres").mkdir()
    (closed / "postgres" / "initialised").touch()
    place = owned_directory(closed / "postgres")
    assert (closed / "postgres").resolve() == place
    assert place.is_relative_to(open_folder)
    assert (place / "initialised").exists()
    assert run("touch", str(place / "written")) == 0
    assert owned_directory(closed / "postgres") == place


def test_a_link_that_leads_nowhere_is_told_and_not_replaced(closed: Path) -> None:
    (closed / "postgres").symlink_to(closed / "cleaned by the system")
    with pytest.raises(PlatformError, match="which is gone"):
        owned_directory(closed / "postgres")


def test_programs_in_a_closed_folder_are_copied_once(closed: Path, open_folder: Path) -> None:
    program = closed / "install" / "bin" / "greet"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    programs = reachable_programs(closed / "install", "greet")
    assert programs.is_relative_to(open_folder)
    assert run(str(programs / "greet")) == 7
    assert reachable_programs(closed / "install", "greet") == programs
    assert len(list(open_folder.glob("ftgo-install-*"))) == 1
