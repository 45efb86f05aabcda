import socket
from pathlib import Path

import pytest
from ftgo_local import doctor
from ftgo_local.errors import PlatformError
from ftgo_local.jars import KAFKA_VERSION
from ftgo_local.ports import free_port


def test_an_old_python_is_found() -> None:
    assert doctor.python((3, 11)).ok
    finding = doctor.python((3, 9))
    assert finding.cause == "Python 3.9 is too old."
    assert "3.11" in finding.cure


def test_scarce_memory_is_found_and_a_small_broker_needs_less() -> None:
    assert doctor.memory(8 * 2**30).ok
    assert "512 MB" in doctor.memory(512 * 2**20).cause
    assert not doctor.memory(900 * 2**20, "kafka").ok
    assert doctor.memory(900 * 2**20, "nats").ok
    assert doctor.memory(750 * 2**20, None).ok


def test_an_absent_broker_is_told_and_a_fault_only_when_it_is_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, state_dir: Path) -> str:
        raise PlatformError("There is no apt-get.", "Install RabbitMQ.")

    monkeypatch.setattr(doctor, "version", absent)
    told = doctor.server("rabbitmq", tmp_path, chosen=False)
    assert (told.ok, told.fact) == (True, "absent: There is no apt-get. Install RabbitMQ.")
    fault = doctor.server("rabbitmq", tmp_path, chosen=True)
    assert (fault.ok, fault.cause, fault.cure) == (False, "There is no apt-get.", "Install RabbitMQ.")


def test_every_broker_has_a_line_with_its_version(tmp_path: Path) -> None:
    found = {f.name: f for f in doctor.examine(tmp_path, {}, running=True)}
    assert found["kafka"].fact == KAFKA_VERSION
    assert {"rabbitmq", "activemq", "valkey", "nats"} <= found.keys()


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_examined(tmp_path: Path) -> None:
    assert str(tmp_path) in doctor.disk(tmp_path / "not" / "yet").fact


def test_a_taken_port_is_found_but_not_the_platforms_own(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        ports = {"order": server.getsockname()[1], "kafka": free_port()}
        bad = [f for f in doctor.examine(tmp_path, ports, running=False) if f.name.startswith("port") and not f.ok]
        assert [finding.name for finding in bad] == [f"port {ports['order']}"]
        assert all(f.ok for f in doctor.examine(tmp_path, ports, running=True) if f.name.startswith("port"))
