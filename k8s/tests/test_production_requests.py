"""What production asks a cluster for: enough for the load that it is meant for, by the measured cost of an order."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVICES = ("consumer", "order", "kitchen", "accounting")
ORDERS_PER_SECOND = 1_000
BUSY = 0.7
"""Of what is requested: above that, the autoscaler of api starts another."""

Manifest = dict[str, Any]
UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}


def amount(quantity: object) -> float:
    found = re.fullmatch(r"([\d.]+)(\w*)", str(quantity))
    assert found, quantity
    return float(found[1]) * UNITS[found[2]]


def spec(manifests: list[Manifest], kind: str, name: str) -> dict[str, Any]:
    (found,) = (m["spec"] for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)
    return dict(found)


def requests(production: list[Manifest], most: bool) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Of each part, (how many, what one asks for); with the fewest pods that the autoscalers leave, or the most."""
    parts: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for service in SERVICES:
        hpa = spec(production, "HorizontalPodAutoscaler", f"{service}-api")
        keda = spec(production, "ScaledObject", f"{service}-worker")
        counts = {
            "api": hpa["maxReplicas" if most else "minReplicas"],
            "worker": keda["maxReplicaCount" if most else "minReplicaCount"],
            "relay": spec(production, "Deployment", f"{service}-relay")["replicas"],
        }
        for process, count in counts.items():
            (container,) = spec(production, "Deployment", f"{service}-{process}")["template"]["spec"]["containers"]
            parts.setdefault(f"{service} {process}", []).append((count, container["resources"]["requests"]))
        database = spec(production, "Cluster", f"{service}-db")
        parts.setdefault("postgresql", []).append((database["instances"], database["resources"]["requests"]))
    brokers = spec(production, "KafkaNodePool", "brokers")
    topics = spec(production, "Kafka", "ftgo")["entityOperator"]["topicOperator"]
    parts["kafka"] = [(brokers["replicas"], brokers["resources"]["requests"])]
    parts["topic operator"] = [(1, topics["resources"]["requests"])]
    return parts


def total(parts: dict[str, list[tuple[int, dict[str, Any]]]], resource: str) -> float:
    return sum(count * amount(asked[resource]) for part in parts.values() for count, asked in part)


def test_what_is_requested_is_enough_for_the_load_it_is_meant_for(production: list[Manifest]) -> None:
    costs = (ROOT / "docs/scaling.md").read_text()

    def cores(pattern: str) -> float:
        found = re.search(pattern, costs)
        assert found, pattern
        return float(found[1]) / 1000 * ORDERS_PER_SECOND

    parts = requests(production, most=False)

    def cpu(part: str, at_work: int) -> float:
        return sum(at_work * amount(asked["cpu"]) for _, asked in parts[part])

    for service, cost in {
        "order": cores(r"CPU of order \| ([\d.]+) ms"),
        # Kitchen costs the most of these three, and they ask for the same.
        "kitchen": (dearest := cores(r"CPU of kitchen, accounting, consumer \| ([\d.]+),")),
        "accounting": dearest,
        "consumer": dearest,
    }.items():
        asked = cpu(f"{service} api", 2) + cpu(f"{service} worker", 2) + cpu(f"{service} relay", 1)
        assert cost <= BUSY * asked, service
    assert cores(r"CPU of PostgreSQL, all four databases \| ([\d.]+) ms") <= BUSY * cpu("postgresql", 1)
    assert 3 * cores(r"CPU of Kafka, one broker, no copies \| ([\d.]+) ms") <= BUSY * cpu("kafka", 3)


def test_the_readme_says_what_a_cluster_has_to_have(production: list[Manifest]) -> None:
    readme = (ROOT / "k8s/README.md").read_text()
    sums = [
        f"{total(parts, 'cpu'):.1f} CPUs and {total(parts, 'memory') / 2**30:.0f} GiB"
        for parts in (requests(production, most=False), requests(production, most=True))
    ]
    assert f"{sums[0]} with as few pods as the autoscalers leave, {sums[1]} with as many" in readme


def test_a_process_has_room_for_what_it_was_measured_to_take(production: list[Manifest]) -> None:
    for manifest in production:
        if manifest["kind"] == "Deployment":
            resources = manifest["spec"]["template"]["spec"]["containers"][0]["resources"]
            assert amount(resources["requests"]["memory"]) > 1.5 * 70 * 2**20
            assert amount(resources["limits"]["memory"]) == 2 * amount(resources["requests"]["memory"])
            assert "cpu" not in resources["limits"], "a limit of CPU stops a process in the middle of its work"
