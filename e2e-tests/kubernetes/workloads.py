"""The pods of FTGO: which belong to what, and when they are there."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import ROOT, Failed, get, kubectl, run

FTGO = "app.kubernetes.io/part-of=ftgo"
LOCAL = ROOT / "k8s/overlays/local"


def rollout(overlay: Path) -> None:
    run(ROOT / "k8s/rollout", overlay)


def pods_of(owner: str) -> list[dict[str, Any]]:
    """Of a Deployment or a StatefulSet."""
    form = re.compile(rf"{owner}-(\d+|[0-9a-z]+-[0-9a-z]{{5}})")
    return [p for p in get("pods") if form.fullmatch(p["metadata"]["name"])]


def _ready(found: dict[str, Any]) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def wait_until_ready(owner: str, seconds: float = 120) -> float:
    """Until one pod of its kind is ready and none is going. The time at which it was seen, since 1970."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pods = pods_of(owner)
        going = [p for p in pods if "deletionTimestamp" in p["metadata"]]
        if pods and not going and all(_ready(p) for p in pods):
            return time.time()
        time.sleep(0.1)
    raise Failed(f"{owner} is not ready after {seconds} s")


def wait_until_gone(owner: str, seconds: float = 120) -> None:
    """Until it has no pod."""
    deadline = time.monotonic() + seconds
    while pods_of(owner):
        if time.monotonic() > deadline:
            raise Failed(f"{owner} does not end")
        time.sleep(0.2)


def scale(replicas: int) -> None:
    kubectl("scale", "deployment", "--selector", FTGO, f"--replicas={replicas}")
    wait_until_replaced()


def wait_until_replaced() -> None:
    """Until all pods of the services are of the newest form and ready, and the old ones are gone."""
    kubectl("rollout", "status", "deployment", "--selector", FTGO, "--timeout=300s")
    deadline = time.monotonic() + 120
    while any("deletionTimestamp" in p["metadata"] for p in get("pods")):
        if time.monotonic() > deadline:
            raise Failed("pods do not end")
        time.sleep(0.5)


def wait_for_replicas(deployment: str, enough: Callable[[int], bool], seconds: float) -> float:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        (found,) = get("deployments", "--field-selector", f"metadata.name={deployment}")
        if enough(found["spec"]["replicas"]):
            return time.monotonic() - began
        time.sleep(1)
    described = kubectl("describe", "horizontalpodautoscaler", deployment)
    raise Failed(f"{deployment} has {found['spec']['replicas']} replicas after {seconds} s\n{described}")
