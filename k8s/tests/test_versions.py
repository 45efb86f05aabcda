"""One version of Kafka and of PostgreSQL everywhere, operators that know it, and images that are what they were."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from ftgo_local import containers, jars, postgres

ROOT = Path(__file__).parents[2]
VERSIONS: dict[str, Any] = yaml.safe_load((ROOT / "k8s/versions.yaml").read_text())

Manifest = dict[str, Any]


def images(manifests: list[Manifest]) -> dict[str, str | None]:
    """Image -> the policy by which it is pulled; None: the default."""
    found = {}
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            spec = manifest["spec"]["template"]["spec"]
            for container in spec["containers"] + spec.get("initContainers", []):
                found[container["image"]] = container.get("imagePullPolicy")
        elif manifest["kind"] == "Cluster":
            found[manifest["spec"].get("imageName", "postgresql")] = None
    return found


def tagged(image: str) -> bool:
    """By a digest, or by a tag that is not said to move."""
    return "@sha256:" in image or bool(re.search(r":(?!latest$)[\w.-]+$", image))


def test_a_tag_is_told_from_a_port_and_from_none() -> None:
    assert tagged("ftgo-order:0.1.0")
    assert tagged(f"a.example.org:5000/ftgo-order@sha256:{'0' * 64}")
    assert not tagged("ftgo-order")
    assert not tagged("ftgo-order:latest")
    assert not tagged("a.example.org:5000/ftgo-order")


def test_kafka_is_the_same_everywhere(local: list[Manifest], production: list[Manifest]) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (strimzi,) = (m["spec"]["kafka"]["version"] for m in production if m["kind"] == "Kafka")
    assert {
        "embedded": jars.KAFKA_VERSION,
        "tests in containers": containers.KAFKA_IMAGE,
        "compose": {s["image"] for s in compose.values() if "kafka" in s.get("image", "")},
        "local": {i for i in images(local) if "kafka" in i},
        "production": strimzi,
    } == {
        "embedded": VERSIONS["kafka"],
        "tests in containers": f"apache/kafka:{VERSIONS['kafka']}",
        "compose": {f"apache/kafka:{VERSIONS['kafka']}"},
        "local": {f"apache/kafka:{VERSIONS['kafka']}"},
        "production": VERSIONS["kafka"],
    }


def test_postgresql_is_the_same_in_all_containers(local: list[Manifest], production: list[Manifest]) -> None:
    major = VERSIONS["postgresql"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert f"postgres:{major}" == containers.POSTGRES_IMAGE
    assert {s["image"] for s in compose.values() if "postgres" in s.get("image", "")} == {f"postgres:{major}"}
    assert {i for i in images(local) if "postgres" in i} == {f"postgres:{major}"}
    clusters = [m["spec"] for m in production if m["kind"] == "Cluster"]
    assert len(clusters) == 4
    for cluster in clusters:  # without a name, the operator takes the version that is its own default
        assert re.search(rf"/postgresql:{major}\.\d+-\d{{12}}-", cluster["imageName"])
    program = postgres._site_packages() / postgres.BIN / "postgres"
    embedded = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert f"(PostgreSQL) {VERSIONS['embedded-postgresql']}." in embedded


def test_what_is_written_for_people_and_for_ci_names_the_same_versions() -> None:
    servers = f"postgres:{VERSIONS['postgresql']} apache/kafka:{VERSIONS['kafka']}"
    embedded = f"A real PostgreSQL {VERSIONS['embedded-postgresql']} and a real Apache Kafka {VERSIONS['kafka']}"
    for file, words in (("k8s/README.md", servers), (".ci/run", servers), ("shared/local/README.md", embedded)):
        assert words in (ROOT / file).read_text(), file


def test_the_operator_knows_the_version_of_kafka() -> None:
    known = VERSIONS["kafka-of-strimzi"]
    assert VERSIONS["kafka"] in known[VERSIONS["strimzi"]]
    newest = max(
        (v for v, kafka in known.items() if VERSIONS["kafka"] in kafka), key=lambda v: [*map(int, v.split("."))]
    )
    assert VERSIONS["strimzi"] == newest


def test_the_readme_and_the_check_name_the_operators_that_were_chosen() -> None:
    readme = (ROOT / "k8s/README.md").read_text()
    for operator, title in (("strimzi", "Strimzi"), ("cloudnative-pg", "CloudNativePG"), ("keda", "KEDA")):
        assert f"{title} {VERSIONS[operator]}" in readme
    assert f"KEDA_VERSION=v{VERSIONS['keda']}" in (ROOT / "k8s/check").read_text()


def test_production_names_the_version_of_every_image(overlay: str, manifests: list[Manifest]) -> None:
    if overlay != "local":
        assert [i for i in images(manifests) if not tagged(i)] == []


def test_an_image_without_a_tag_is_not_pulled(manifests: list[Manifest]) -> None:
    """Kubernetes would take the tag :latest, and pull it at every start."""
    for image, policy in images(manifests).items():
        assert tagged(image) or policy in {"IfNotPresent", "Never"}, image
