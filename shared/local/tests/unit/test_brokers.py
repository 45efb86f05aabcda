"""The brokers that `ftgo` knows."""

import re
from pathlib import Path

import pytest
import yaml
from ftgo_local.brokers import kinds
from ftgo_local.brokers.kinds import KINDS, absence, kind_of, server, shown, version
from ftgo_local.errors import PlatformError
from ftgo_local.ports import BROKER_PORTS, DEFAULT_PORTS, chosen_ports, free_port
from ftgo_local.services import service_environment
from ftgo_messaging.transports import PACKAGES, transport_at

ROOT = Path(__file__).parents[4]
OTHERS = [kind.name for kind in KINDS.values() if kind.runs and kind.name != "kafka"]
IMAGES = {
    "rabbitmq": "rabbitmq:4",
    "activemq": "apache/activemq-classic:6.3.1",
    "valkey": "valkey/valkey:8",
    "nats": "nats:2",
}


@pytest.mark.parametrize("name", KINDS)
def test_each_server_is_a_unit_with_an_address_of_its_own_kind(name: str, tmp_path: Path) -> None:
    unit = server(name, tmp_path, lambda _: free_port(), tmp_path / "log")
    assert (unit.name, unit.pid, unit.end) == (name, None, "")
    assert unit.directory == tmp_path / name
    kind = kind_of(unit.url)
    assert kind is KINDS[name]
    assert f"127.0.0.1:{unit.port}" in unit.url or not kind.runs
    assert not unit.directory.exists()  # nothing is made before it is started


def test_every_scheme_is_one_of_the_library_and_every_broker_has_ports() -> None:
    for name, kind in KINDS.items():
        assert {PACKAGES[scheme] for scheme in kind.schemes} == {name}
    assert BROKER_PORTS.keys() == KINDS.keys()
    used = [port for ports in (DEFAULT_PORTS, *BROKER_PORTS.values()) for port in ports.values()]
    assert len(set(used)) == len(used)
    assert max(used) + 40_000 < 65_536  # the largest offset


@pytest.mark.parametrize("name", KINDS)
def test_leases_decide_where_the_broker_does_not_assign_lanes(name: str, tmp_path: Path) -> None:
    transport = transport_at(server(name, tmp_path, lambda _: free_port(), tmp_path / "log").url)
    assert KINDS[name].leases is not transport.traits.assigns


def test_only_the_broker_that_is_to_run_needs_ports() -> None:
    environment = {"FTGO_NATS_PORT": "4222"}
    assert chosen_ports(100, environment, broker="nats")["nats"] == 4322
    assert "kafka" not in chosen_ports(0, environment, broker="nats")
    assert not chosen_ports(0, environment, broker=None).keys() & {"kafka", "nats"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("valkey://:pass@[::1]:6379?lanes=3", "valkey://[::1]:6379"),
        ("amqps://user:p%40ss@broker/vhost", "amqps://broker/vhost"),
        ("http+static:///some/where/registry.json?lanes=3", "http+static:///some/where/registry.json"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_a_module_that_is_missing_is_a_reason_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = kinds.Kind("nats", "NATS", "ftgo_local.brokers.nowhere:Nats", ("nats",), 1, 1)
    monkeypatch.setitem(kinds.KINDS, "nats", nowhere)
    error = absence("nats", tmp_path)
    assert isinstance(error, PlatformError)
    assert "NATS cannot be started here: No module named" in error.cause
    assert error.cure


def test_services_are_told_of_one_broker_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FTGO_BROKER_URL", "FTGO_KAFKA_BOOTSTRAP"):
        monkeypatch.setenv(name, "stranger")
    environment = service_environment("order", 1, "postgresql://x", "nats://127.0.0.1:1")
    assert environment["FTGO_BROKER_URL"] == "nats://127.0.0.1:1"
    assert "FTGO_KAFKA_BOOTSTRAP" not in environment
    environment = service_environment("order", 1, "postgresql://x", "127.0.0.1:1")
    assert environment["FTGO_KAFKA_BOOTSTRAP"] == "127.0.0.1:1"
    assert "FTGO_BROKER_URL" not in environment


@pytest.mark.parametrize("name", ["valkey", "nats"])
def test_a_server_from_a_package_tells_its_version(name: str, tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", version(name, tmp_path))


class _Loader(yaml.SafeLoader):
    """Compose's own tags (!override) mean nothing here."""


_Loader.add_multi_constructor("!", lambda loader, _, node: loader.construct_mapping(node, deep=True))


@pytest.mark.parametrize("name", OTHERS)
def test_the_compose_override_gives_its_address_to_whatever_speaks_to_kafka(name: str) -> None:
    base = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    services = yaml.load((ROOT / f"compose/{name}.yml").read_text(), _Loader)["services"]  # noqa: S506 - our own file
    assert services["kafka"] == {"profiles": ["kafka"]}
    assert services[name]["image"] == IMAGES[name]
    assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    (url,) = {services[each]["environment"]["FTGO_BROKER_URL"] for each in _speakers(base)}
    kind = kind_of(url)
    assert kind is KINDS[name]
    assert list(services["topics"]["depends_on"]) == [name]


def _speakers(services: dict[str, dict[str, object]]) -> list[str]:
    found = []
    for name, service in services.items():
        environment = service.get("environment")
        if isinstance(environment, dict) and "FTGO_BROKER_URL" in environment:
            found.append(name)
    assert len(found) == 11
    return found
