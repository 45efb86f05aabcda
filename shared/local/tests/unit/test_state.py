import json
import os
from pathlib import Path

import pytest
from ftgo_local.errors import AlreadyRunningError, PlatformError
from ftgo_local.identity import Identity
from ftgo_local.state import PlatformState, StateDirectory, UnitState, state_directory


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
        Identity(1, "boot 2"), "ready", {"order": 8082}, {"order": UnitState("running", 3, "boot 4", 5, 6, "log")}
    )
    StateDirectory(tmp_path).write(state)
    assert StateDirectory(tmp_path).read() == state
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"supervisor": {}}', "\x00" * 80])
def test_a_damaged_state_file_is_a_sentence_for_who_reads_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(PlatformError, match=r"state\.json is damaged.*delete the file"):
        StateDirectory(tmp_path).read()


def test_the_state_of_an_older_release_is_read_and_its_processes_are_nobody(tmp_path: Path) -> None:
    process = {"pid": os.getpid(), "created": 1.5}
    old = {"supervisor": process, "phase": "ready", "ports": {}, "units": {"order": {"status": "running", **process}}}
    (tmp_path / "state.json").write_text(json.dumps(old))
    state = StateDirectory(tmp_path).read()
    assert state is not None
    identity = state.units["order"].identity
    assert identity is not None
    assert identity.process() is state.supervisor.process() is None


def test_a_state_file_that_somebody_damages_or_deletes_is_noticed(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    assert not directory.is_as_written()
    state = PlatformState(Identity(1, "boot 2"))
    directory.write(state)
    assert directory.is_as_written()
    (tmp_path / "state.json").write_text("")
    assert not directory.is_as_written()
    directory.write(state)
    (tmp_path / "state.json").unlink()
    assert not directory.is_as_written()


def test_damaged_wishes_change_nothing_and_who_asks_next_is_told(tmp_path: Path) -> None:
    supervisor, command = StateDirectory(tmp_path), StateDirectory(tmp_path)
    command.want("order", run=False)
    assert not supervisor.wanted("order").run
    (tmp_path / "wanted.json").write_text('{"order": ')
    assert not supervisor.wanted("order").run
    with pytest.raises(PlatformError, match=r"wanted\.json is damaged.*Delete it"):
        command.want("order", run=True)
    (tmp_path / "wanted.json").unlink()
    assert supervisor.wanted("order").run


def test_the_brokers_unit_is_no_service_whatever_its_name() -> None:
    units = {name: UnitState() for name in ("order", "postgres", "nats", "kitchen")}
    state = PlatformState(Identity(1, "boot 2"), units=units, broker="nats", broker_url="nats://127.0.0.1:1")
    assert state.services == ["order", "kitchen"]
    assert state.infrastructure == ["nats", "postgres"]  # in the order in which they are stopped
    del units["nats"]  # it runs elsewhere
    assert state.infrastructure == ["postgres"]


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    with directory.lock():
        assert directory.is_locked()
        with pytest.raises(AlreadyRunningError, match="already up"), StateDirectory(tmp_path).lock():
            pytest.fail("two supervisors would own one directory")
    assert not directory.is_locked()


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
