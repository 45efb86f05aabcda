import os
import subprocess
import sys
from pathlib import Path

import pytest
from ftgo_local.environment import foreign, server_environment, settle
from ftgo_local.services import service_environment

FOREIGN = {
    "PGSSLMODE": "require",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGHOST": "elsewhere",
    "PGOPTIONS": "-c search_path=mine",
    "KAFKA_HEAP_OPTS": "-Xmx8g",
    "JAVA_TOOL_OPTIONS": "-javaagent:/nowhere.jar",
    "_JAVA_OPTIONS": "-Xmx1m",
    "JDK_JAVA_OPTIONS": "--nonsense",
    "CLASSPATH": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONHOME": "/nowhere",
    "LC_ALL": "de_DE.ISO-8859-1",
}
OURS = {
    "FTGO_LOG_FORMAT": "json",
    "FTGO_KAFKA_BOOTSTRAP": "x:1",
    "PATH": "/bin",
    "OTEL_SDK_DISABLED": "true",
    "PGP": "",
}


def test_what_is_meant_for_other_programs_is_found_and_removed() -> None:
    environment = FOREIGN | {k: v for k, v in OURS.items() if k != "PGP"}
    assert foreign(environment) == sorted(FOREIGN)
    assert settle(environment) == sorted(FOREIGN)
    assert environment.keys() == OURS.keys() - {"PGP"} | {"PGSSLMODE"}
    assert settle(environment) == []


def test_neither_servers_nor_services_hear_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    service = service_environment("order", 1, "postgresql://x", "y:1")
    server = server_environment(tmp_path)
    for name, value in FOREIGN.items():
        assert service.get(name) != value
        assert server.get(name) != value
    assert server["HOME"] == str(tmp_path)


@pytest.mark.parametrize("home", [None, "", "/nonexistent"])
def test_doctor_names_what_is_ignored_and_needs_no_home(home: str | None, tmp_path: Path) -> None:
    environment = {**os.environ, **OURS, "PGSSLMODE": "require", "KAFKA_OPTS": "x", "FTGO_STATE_DIR": str(tmp_path)}
    environment.pop("HOME", None)
    if home is not None:
        environment["HOME"] = home
    command = [sys.executable, "-m", "ftgo_local", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "ignored, as meant for other programs: KAFKA_OPTS, PGP, PGSSLMODE" in done.stdout
    assert "Traceback" not in done.stderr
