"""The pods of FTGO: which belong to what, and when they are there."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import ROOT, get, kubectl, run, until

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

    def ready() -> bool:
        pods = pods_of(owner)
        return bool(pods) and all(_ready(p) and "deletionTimestamp" not in p["metadata"] for p in pods)

    until(ready, seconds, lambda: f"{owner} is not ready after {seconds} s", every=0.1)
    return time.time()


def wait_until_gone(owner: str, seconds: float = 120) -> None:
    """Until it has no pod."""
    until(lambda: not pods_of(owner), seconds, lambda: f"{owner} does not end")


def scale(replicas: int) -> None:
    kubectl("scale", "deployment", "--selector", FTGO, f"--replicas={replicas}")
    wait_until_replaced()


def wait_until_replaced() -> None:
    """Until all pods of the services are of the newest form and ready, and the old ones are gone."""
    kubectl("rollout", "status", "deployment", "--selector", FTGO, "--timeout=300s")
    until(lambda: all("deletionTimestamp" not in p["metadata"] for p in get("pods")), 120, lambda: "pods do not end")


def wait_for_replicas(deployment: str, enough: Callable[[int], bool], seconds: float) -> float:
    """Until it is asked for enough; how many seconds that took."""
    began = time.monotonic()

    def reached() -> bool:
        (found,) = get("deployments", "--field-selector", f"metadata.name={deployment}")
        return enough(found["spec"]["replicas"])

    until(reached, seconds, lambda: kubectl("describe", "horizontalpodautoscaler", deployment), every=1)
    return time.monotonic() - began
