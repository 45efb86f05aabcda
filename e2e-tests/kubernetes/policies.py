"""Who reaches whom: tried with real connections, from a pod of each kind."""

import json
import time
from typing import Any, NamedTuple

from client import CLIENTS, pod
from cluster import Failed, apply, get, kubectl

STRANGERS = "ftgo-strangers"
"""A namespace without a label that FTGO knows."""

# Prints the words of each address that takes a connection. A refusal and a silence of 2 s are the same to a client.
_PROBE = """
import json, socket, sys
open_ = []
for words, host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), 2).close()
        open_.append(words)
    except OSError:
        pass
print(json.dumps(open_))
"""


class Path(NamedTuple):
    """A way from the pod to an address."""

    source: str
    words: str
    host: str
    port: int


class Policies:
    """``sources``: a pod in each role, which stays until ``close``."""

    def __init__(self) -> None:
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STRANGERS}})
        idle = ["sleep", "infinity"]
        apply(pod("client", "ftgo-tools", idle), namespace=CLIENTS)
        apply(pod("stranger", "ftgo-tools", idle), namespace=STRANGERS)
        apply(pod("unlabelled", "ftgo-tools", idle))
        for name, namespace in (("client", CLIENTS), ("stranger", STRANGERS), ("unlabelled", "ftgo")):
            kubectl("wait", "--for", "condition=Ready", f"pod/{name}", "--timeout", "60s", namespace=namespace)
        address = {name: _address_of(name) for name in ("order-worker", "consumer-api")}
        # The API server stands for all that is outside of the namespace.
        outside = [("the API server", "kubernetes.default.svc", 443)]
        platform = [("PostgreSQL", "postgres.ftgo.svc", 5432), ("Kafka", "kafka.ftgo.svc", 9092)]
        requests = [("requests to order", "order-http.ftgo.svc", 8082)]
        worker = [("metrics of order's worker", address["order-worker"], 8082)]
        self.allowed = [
            *_from("client", [*requests, *worker]),
            *_from("order-api", platform),
            *_from("kitchen-relay", platform),
        ]
        self.refused = [
            *_from("client", platform),
            *_from("stranger", [*platform, *requests, *worker]),
            *_from("unlabelled", [*platform, *requests, *worker, *outside]),
            *_from("order-api", [("requests to consumer", address["consumer-api"], 8081), *worker, *outside]),
            *_from("kitchen-relay", [*requests, *outside]),
            *_from("postgres", [("Kafka", "kafka.ftgo.svc", 9092), *outside]),
            *_from("kafka", [("PostgreSQL", "postgres.ftgo.svc", 5432), *outside]),
        ]

    def close(self) -> None:
        kubectl("delete", "pod", "client", namespace=CLIENTS)
        kubectl("delete", "namespace", STRANGERS)
        kubectl("delete", "pod", "unlabelled")

    def check(self) -> str:
        """All that is allowed is open, and all else closed. Raises Failed."""
        expected = {(p.source, p.words) for p in self.allowed}
        found = self._open([*self.allowed, *self.refused], expected)
        if found != expected:
            raise Failed(f"open, and should not be: {sorted(found - expected)}; closed: {sorted(expected - found)}")
        return f"{len(self.allowed)} paths open, {len(self.refused)} refused"

    def check_without(self) -> str:
        """Without policies all these ways are open: what refused them was the policies. Raises Failed."""
        expected = {(p.source, p.words) for p in [*self.allowed, *self.refused]}
        found = self._open([*self.allowed, *self.refused], expected)
        if found != expected:
            raise Failed(f"closed without any policy, which then proves nothing: {sorted(expected - found)}")
        return f"{len(expected)} paths open without policies"

    def _open(self, paths: list[Path], expected: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which take a connection. A policy is enforced up to some seconds after it was made."""
        deadline = time.monotonic() + 20
        while True:
            found = {(source, words) for source in {p.source for p in paths} for words in _probe(source, paths)}
            if found == expected or time.monotonic() > deadline:
                return found
            time.sleep(1)

    @staticmethod
    def clients_to_kafka() -> dict[str, Any]:
        """For tests that play a stranger who writes to Kafka."""
        source = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": CLIENTS}}}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "clients-to-kafka"},
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kafka"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [source], "ports": [{"port": 9092}]}],
            },
        }


def _from(source: str, ways: list[tuple[str, str, int]]) -> list[Path]:
    return [Path(source, *way) for way in ways]


def _probe(source: str, paths: list[Path]) -> list[str]:
    ways = json.dumps([(p.words, p.host, p.port) for p in paths if p.source == source])
    namespace = {"client": CLIENTS, "stranger": STRANGERS}.get(source, "ftgo")
    if source in {"postgres", "kafka"}:  # no Python in there
        return [p.words for p in paths if p.source == source and _bash_reaches(source, p)]
    name = source if source in {"client", "stranger", "unlabelled"} else f"deployment/{source}"
    found: list[str] = json.loads(kubectl("exec", name, "--", "python", "-c", _PROBE, ways, namespace=namespace))
    return found


def _bash_reaches(source: str, path: Path) -> bool:
    connect = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{path.host}/{path.port}' 2>/dev/null && echo open || echo closed"
    return kubectl("exec", f"{source}-0", "--", "bash", "-c", connect).strip() == "open"


def _address_of(deployment: str) -> str:
    pods = get("pods", "--selector", "app.kubernetes.io/part-of=ftgo")
    (found,) = (p for p in pods if p["metadata"]["name"].startswith(f"{deployment}-"))
    return str(found["status"]["podIP"])
