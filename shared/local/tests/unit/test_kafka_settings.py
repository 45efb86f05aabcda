"""Kafka's server.properties: ours, what a test stand puts over them, and what every deployment has of them."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ftgo_local.kafka import CONNECTIONS_PER_ADDRESS, LIMITS, PROPERTIES, Kafka
from ftgo_messaging.transports.kafka.publisher import REQUEST_BYTES

ROOT = Path(__file__).parents[4]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user can enter. Out of pytest's own, which are closed, root's data would move, and stay there."""
    with tempfile.TemporaryDirectory(prefix="ftgo-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_extra_settings_replace_ours_and_add_to_them(folder: Path) -> None:
    kafka = Kafka(folder, 19092, 19093)
    kafka.extra_settings = {"num.io.threads": "2", "inter.broker.listener.name": "PLAINTEXT"}
    kafka._configure()
    lines = (kafka.directory.resolve() / PROPERTIES).read_text().splitlines()
    assert [line for line in lines if line.startswith("num.io.threads=")] == ["num.io.threads=2"]
    assert "inter.broker.listener.name=PLAINTEXT" in lines
    assert "auto.create.topics.enable=false" in lines


@pytest.mark.parametrize("name", ["jörg", "a,b", "back\\slash", "100%", "#1", "a=b", "it's", "two  blanks", "$HOME"])
def test_no_setting_names_a_folder_whose_letters_have_a_meaning(folder: Path, name: str) -> None:
    kafka = Kafka(folder / name / "kafka", 19092, 19093)
    kafka._configure()
    settings = (kafka.directory.resolve() / PROPERTIES).read_text(encoding="ascii")
    assert "log.dirs=data\n" in settings
    assert name not in settings
    assert name not in " ".join(kafka._java("kafka.Kafka", PROPERTIES))


def test_what_is_the_same_is_not_written_at_the_next_start(folder: Path) -> None:
    kafka = Kafka(folder, 19092, 19093)
    kafka._configure()
    before = (kafka.directory.resolve() / PROPERTIES).stat()
    kafka._configure()
    after = (kafka.directory.resolve() / PROPERTIES).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def in_compose() -> dict[str, str]:
    environment = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["kafka"]["environment"]
    return {name: str(value) for name, value in environment.items()}


def in_the_local_overlay() -> dict[str, str]:
    manifests = yaml.safe_load_all((ROOT / "k8s/overlays/local/kafka.yaml").read_text())
    (kafka,) = [m for m in manifests if m["kind"] == "StatefulSet"]
    return {e["name"]: str(e["value"]) for e in kafka["spec"]["template"]["spec"]["containers"][0]["env"]}


def in_production() -> dict[str, str]:
    manifests = yaml.safe_load_all((ROOT / "k8s/overlays/production/kafka.yaml").read_text())
    (kafka,) = [m for m in manifests if m["kind"] == "Kafka"]
    config = kafka["spec"]["kafka"]["config"]
    return {f"KAFKA_{name.upper().replace('.', '_')}": str(value) for name, value in config.items()}


@pytest.mark.parametrize("deployed", [in_compose, in_the_local_overlay, in_production])
def test_every_deployment_bounds_what_connections_cost(deployed: Callable[[], dict[str, str]]) -> None:
    limits = {**LIMITS, "max.connections.per.ip": str(CONNECTIONS_PER_ADDRESS)}
    expected = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in limits.items()}
    assert {name: value for name, value in deployed().items() if name in expected} == expected


def test_the_embedded_one_does_so_too(folder: Path) -> None:
    """And the containers of the tests, which take their settings from it."""
    settings = Kafka(folder, 19092, 19093)._settings()
    assert {name: settings[name] for name in LIMITS} == LIMITS
    assert "max.connections.per.ip" in settings


def test_the_limits_fit_what_we_send_and_each_other() -> None:
    largest, pool = int(LIMITS["socket.request.max.bytes"]), int(LIMITS["queued.max.request.bytes"])
    # A full request, or a message of the largest size in one; and what stands before it.
    assert largest > 1.5 * REQUEST_BYTES
    # No address alone can use up the memory of all.
    assert CONNECTIONS_PER_ADDRESS * largest < pool
