"""The load, seen from outside of the cluster: starts the pod that runs ``load.py``, and reads what it says."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from cluster import Failed, apply, get, kubectl, until

CLIENTS = "ftgo-client"
"""The namespace of those who may send requests and read metrics."""


def urls() -> dict[str, str]:
    ports = {"consumer": 8081, "order": 8082, "kitchen": 8083, "accounting": 8085}
    return {f"FTGO_{name.upper()}_URL": f"http://{name}-http.ftgo.svc:{port}" for name, port in ports.items()}


def pod(name: str, image: str, command: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """With the least that a pod needs, ended at once when it is deleted. ``more``: env, labels, volumes, mounts."""
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in more.get("env", {}).items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *more.get("mounts", [])],  # noqa: S108
    }
    if command is not None:
        container["command"] = command
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # Kafka calls itself "kafka", which is a name of the other namespace.
            "dnsConfig": {"searches": ["ftgo.svc.cluster.local"]},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *more.get("volumes", [])],
        },
    }


def _program(name: str, **env: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod that runs ``load.py``, and what holds the program."""
    program = Path(__file__).with_name("load.py").read_text()
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"load.py": program}}
    volume = {"name": "program", "configMap": {"name": name}}
    mount = {"name": "program", "mountPath": "/load", "readOnly": True}
    command = ["python", "/load/load.py"]
    return config, pod(name, "ftgo-tools", command, env={**urls(), **env}, volumes=[volume], mounts=[mount])


def wait_for_end(name: str, seconds: float) -> str:
    """The log of a pod that has ended well, and is deleted then. Raises Failed with the log otherwise."""

    def ended() -> str | None:
        (found,) = get("pods", "--field-selector", f"metadata.name={name}", namespace=CLIENTS)
        phase: str = found["status"]["phase"]
        return phase if phase in {"Succeeded", "Failed"} else None

    phase = until(ended, seconds, lambda: f"{name} does not end\n{kubectl('logs', name, namespace=CLIENTS)}", every=0.5)
    log = kubectl("logs", name, namespace=CLIENTS)
    kubectl("delete", "pod", name, namespace=CLIENTS)
    if phase != "Succeeded":
        raise Failed(f"{name}: {phase}\n{log}")
    return log


def place(orders: int) -> list[str]:
    """The ids of so many new orders, which have not settled yet."""
    apply(*_program("place", FTGO_LOAD_ROUNDS=str(orders), FTGO_LOAD_RATE="10"), namespace=CLIENTS)
    last = json.loads(wait_for_end("place", 120).splitlines()[-1])
    found: list[str] = last["unsettled"]
    return found


class Load:
    """A client that repeats nothing, until ``stop``. What it has seen so far is in ``failed`` and ``settled``."""

    def __init__(self, rate: float, name: str = "load") -> None:
        self.name = name
        self.failed: list[dict[str, Any]] = []
        self.settled: list[float] = []
        self.counts: list[dict[str, Any]] = []
        self.end: dict[str, Any] | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        apply(*_program(name, FTGO_LOAD_RATE=str(rate)), namespace=CLIENTS)
        kubectl("wait", "--for", "condition=Ready", f"pod/{name}", "--timeout", "60s", namespace=CLIENTS)
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(120):
            raise Failed(f"the load does not begin: {kubectl('logs', name, namespace=CLIENTS)}")

    def _read(self) -> None:
        command = ["kubectl", "--namespace", CLIENTS, "logs", "--follow", self.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as logs:
            for line in logs.stdout or ():
                if not line.startswith("{"):
                    print(line, end="")
                    continue
                said = json.loads(line)
                if "ready" in said:
                    self._ready.set()
                elif "failed" in said:
                    self.failed.append(said)
                elif "settled" in said:
                    self.settled.append(said["at"])
                elif "count" in said:
                    self.counts.append(said["count"])
                elif "end" in said:
                    self.end = said
        self._ended.set()

    def requests_since(self, began: float) -> int:
        """How many requests were sent since then."""
        before = [c["requests"] for c in self.counts if c["at"] < began]
        return int(self.counts[-1]["requests"] - (before[-1] if before else 0))

    def failed_since(self, began: float) -> list[dict[str, Any]]:
        return [f for f in self.failed if f["at"] >= began]

    def wait_for_requests(self, count: int, began: float, seconds: float = 180) -> None:
        until(
            lambda: self.requests_since(began) >= count,
            seconds,
            lambda: f"{self.requests_since(began)} requests instead of {count}",
        )

    def wait_until_settled_after(self, moment: float, seconds: float = 60) -> float:
        """Waits for an order that settles after that moment; returns how many seconds later."""
        later = until(
            lambda: [at for at in self.settled if at > moment], seconds, lambda: f"no order settles within {seconds} s"
        )
        return later[0] - moment

    def wait_until_nothing_is_old(self, most: float = 2.0, seconds: float = 90) -> None:
        """Until no pending order is older than that: all that had waited has settled."""

        def all_settle() -> bool:
            last = self.counts[-1] if self.counts else {"oldest": most + 1, "at": 0}
            return last["oldest"] <= most and last["at"] >= time.time() - 5

        until(all_settle, seconds, lambda: f"orders wait: {self.counts[-1:]}")

    def stop(self) -> dict[str, Any]:
        """No more orders. Returns the last count when all have settled. Raises Failed when some have not."""
        kubectl("exec", self.name, "--", "sh", "-c", "kill -TERM 1", namespace=CLIENTS)
        if not self._ended.wait(120) or self.end is None:
            raise Failed("the load has not ended")
        kubectl("delete", "pod", self.name, "--wait=false", namespace=CLIENTS)
        if self.end["unsettled"]:
            raise Failed(f"{len(self.end['unsettled'])} orders never settled: {self.end['unsettled'][:5]}")
        found: dict[str, Any] = self.end["end"]
        return found
