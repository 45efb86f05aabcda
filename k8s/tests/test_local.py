"""What a cluster on one's own machine can carry, and what it must not do to a volume or a client."""

import re
from typing import Any

import pytest

Manifest = dict[str, Any]
UNITS = {"m": 0.001, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(written: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(written)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in kinds]


def test_local_asks_for_what_a_laptop_has(local: list[Manifest]) -> None:
    """On two cores something is left for the surge of a rolling restart; a job runs before what it is for."""
    requests = [
        container["resources"]["requests"]
        for manifest in of_kind(local, "Deployment", "StatefulSet")
        for container in manifest["spec"]["template"]["spec"]["containers"]
    ]
    assert len(requests) == 14
    assert sum(quantity(r["cpu"]) for r in requests) <= 1.6
    assert sum(quantity(r["memory"]) for r in requests) <= 1.6 * 2**30


def test_images_that_were_loaded_are_not_pulled(local: list[Manifest]) -> None:
    """Without a tag, the default would be to pull: from a registry that has never heard of them."""
    for manifest in of_kind(local, "Deployment", "StatefulSet", "Job"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            assert container.get("imagePullPolicy") == "IfNotPresent" or ":" in container["image"]


def test_a_volume_is_opened_to_the_group_only_while_it_is_new(local: list[Manifest]) -> None:
    """PostgreSQL does not start with a data directory that others may read."""
    for stateful in of_kind(local, "StatefulSet"):
        security = stateful["spec"]["template"]["spec"]["securityContext"]
        assert security["fsGroupChangePolicy"] == "OnRootMismatch"


@pytest.mark.parametrize("name", ["postgres", "kafka"])
def test_an_address_stays_when_its_pod_is_another_one(local: list[Manifest], name: str) -> None:
    (service,) = (s for s in of_kind(local, "Service") if s["metadata"]["name"] == name)
    assert service["spec"].get("clusterIP") != "None"


def test_a_job_that_failed_is_not_tried_again_behind_the_back_of_the_rollout(manifests: list[Manifest]) -> None:
    for job in of_kind(manifests, "Job"):
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
