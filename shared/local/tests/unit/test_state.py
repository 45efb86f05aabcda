import os
import subprocess
import sys
from pathlib import Path

import pytest
from ftgo_local.errors import AlreadyRunningError
from ftgo_local.state import Identity, PlatformState, StateDirectory, UnitState, state_directory


def test_the_state_directory_is_found_from_any_folder_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.lock").touch()
    below = tmp_path / "services" / "order"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert state_directory(0, {}) == tmp_path / ".ftgo"
    assert state_directory(300, {}) == tmp_path / ".ftgo" / "offset-300"
    assert state_directory(300, {"FTGO_STATE_DIR": "/elsewhere"}) == Path("/elsewhere")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = PlatformState(
        Identity(1, 2.0), "ready", {"order": 8082}, {"order": UnitState("running", 3, 4.0, 5, 6, "log")}
    )
    StateDirectory(tmp_path).write(state)
    assert StateDirectory(tmp_path).read() == state
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"supervisor": {}}'])
def test_a_damaged_state_file_is_no_state(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert StateDirectory(tmp_path).read() is None


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    with directory.lock():
        assert directory.is_locked()
        with pytest.raises(AlreadyRunningError, match="already up"), StateDirectory(tmp_path).lock():
            pytest.fail("two supervisors would own one directory")
    assert not directory.is_locked()


def test_a_pid_that_is_used_again_is_somebody_else() -> None:
    me = Identity.of(os.getpid())
    assert me.process() is not None
    assert Identity(me.pid, me.created - 60).process() is None


def test_a_process_that_has_ended_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = Identity.of(process.pid)
        process.kill()
        process.wait()
    assert identity.process() is None


def test_wishes_are_kept_per_unit_and_restarts_are_counted(tmp_path: Path) -> None:
    supervisor, command = StateDirectory(tmp_path), StateDirectory(tmp_path)
    assert supervisor.wanted("order").run
    command.want("order", run=False)
    assert not supervisor.wanted("order").run
    assert supervisor.wanted("kitchen").run
    command.want("order", run=True, again=True)
    assert supervisor.wanted("order").run
    assert supervisor.wanted("order").generation == 1
    supervisor.want_everything()
    assert supervisor.wanted("order").generation == 0


def test_deleting_a_copy_leaves_the_copy_below_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    state = tmp_path / ".ftgo"
    (state / "offset-300" / "kafka").mkdir(parents=True)
    (state / "kafka").mkdir()
    (state / "seed.json").touch()
    (state / "postgres").symlink_to(elsewhere)
    StateDirectory(state).delete()
    assert [p.name for p in state.iterdir()] == ["offset-300"]
    assert (state / "offset-300" / "kafka").exists()
    assert not elsewhere.exists()
