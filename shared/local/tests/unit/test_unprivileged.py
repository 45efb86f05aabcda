import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftgo_local import postgres
from ftgo_local.errors import PlatformError
from ftgo_local.unprivileged import (
    drop_privileges,
    owned_directory,
    private_directory,
    reachable_files,
    reachable_programs,
    services_reachable,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder that only root can enter, as a checkout under /root is."""
    tmp_path.chmod(0o700)
    below = tmp_path / "checkout"
    below.mkdir()
    return below


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
    program.write_text('#!/bin/sh\n[ "$(cat "$(dirname "$0")/../../install.libs/name")" = Ada ] && exit 7\n')
    program.chmod(0o755)
    library = closed / "install.libs" / "name"
    library.parent.mkdir()
    library.write_text("Ada")
    trees = ["install", "install.libs", "not in every wheel"]
    programs = reachable_programs(closed, trees, "install/bin/greet")
    assert programs.is_relative_to(open_folder)
    assert run(str(programs / "install" / "bin" / "greet")) == 7
    assert reachable_programs(closed, trees, "install/bin/greet") == programs
    assert len(list(open_folder.iterdir())) == 1


@pytest.fixture
def private_files() -> Iterator[None]:
    """What `ftgo up` makes is for its owner only."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.parametrize("program", ["initdb", "postgres"])
@pytest.mark.usefixtures("private_files")
def test_a_copy_of_postgresql_finds_its_libraries(open_folder: Path, program: str) -> None:
    root = reachable_programs(postgres._site_packages(), postgres.TREES, f"{postgres.BIN}/postgres", copy=True)
    assert root.is_relative_to(open_folder)
    assert run(str(root / postgres.BIN / program), "--version") == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_root_starts_runs_as_a_user_of_its_own() -> None:
    user = pwd.getpwuid(drop_privileges()["user"])
    assert user.pw_name == "ftgo"
    assert user.pw_uid not in {0, pwd.getpwnam("nobody").pw_uid}
    assert user.pw_shell == "/usr/sbin/nologin"


def test_files_in_a_closed_folder_are_copied_once(closed: Path, open_folder: Path) -> None:
    (closed / "one.jar").write_bytes(b"1")
    (closed / "one.jar").chmod(0o600)
    copies = reachable_files([closed / "one.jar"], "jars-of-a-test")
    assert copies == [open_folder / "ftgo-jars-of-a-test" / "one.jar"]
    assert run("test", "-r", str(copies[0])) == 0
    assert reachable_files([closed / "one.jar"], "jars-of-a-test") == copies
    (open_folder / "one.jar").write_bytes(b"1")
    (open_folder / "one.jar").chmod(0o644)  # a command that ran in this process may have set the umask
    assert reachable_files([open_folder / "one.jar"], "unused") == [open_folder / "one.jar"]


def test_a_state_directory_is_passed_through_by_the_user_of_the_servers_and_read_by_nobody(open_folder: Path) -> None:
    state = open_folder / ".ftgo" / "offset-100"
    private_directory(state)
    data = owned_directory(state / "kafka")
    assert data == state / "kafka"
    assert [mode(path) for path in (state.parent, state, data)] == [0o710, 0o710, 0o700]
    assert run("test", "-w", str(data)) == 0
    assert run("ls", str(state)) != 0
    stranger = pwd.getpwnam("nobody")
    command = ["test", "-x", str(state)]
    done = subprocess.run(command, check=False, user=stranger.pw_uid, group=stranger.pw_gid, extra_groups=[])
    assert done.returncode == 1


def test_a_folder_that_is_there_already_keeps_its_modes_but_for_the_passage(open_folder: Path) -> None:
    for before, after in ((0o700, 0o710), (0o755, 0o755), (0o1777, 0o1777)):
        folder = open_folder / oct(before)
        folder.mkdir()
        folder.chmod(before)
        private_directory(folder)
        assert mode(folder) == after


def test_data_of_an_earlier_user_are_taken_over_and_closed(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    data = open_folder / "postgres" / "data"
    data.mkdir(parents=True, mode=0o755)
    for path in (data.parent, data):
        os.chown(path, nobody, nobody)
    owned_directory(data.parent)
    assert {path.stat().st_uid for path in (data.parent, data)} == {drop_privileges()["user"]}
    assert mode(data.parent) == 0o700


def test_whether_services_can_run_is_tried(closed: Path) -> None:
    assert not services_reachable(str(closed / "python"))
    python = closed / "python3"
    python.symlink_to("/usr/bin/true")
    assert not services_reachable(str(python))
    assert services_reachable("/usr/bin/true")
