"""The cluster that is tried on: a stand-in that is started for it, or the one that a context of kubectl names."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 1800
_ABOUT = "Three namespaces, ftgo and ftgo-*, are made in it and deleted, and a node is drained."
LOCAL_CONTEXTS = ("kind-", "k3d-", "minikube", "docker-desktop", "rancher-desktop", "standin")


class NoClusterError(Exception):
    """There is no cluster to be had here; the sentence says why."""


class Failed(AssertionError):
    """What was seen is not what should be."""


def run(*command: str | Path, given: str | None = None, seconds: float = 600, env: Any = None) -> str:
    """What the command prints. Raises Failed with what it says when it fails."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=seconds, env=env
    )  # fmt: skip
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))[:200]}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*command: str, namespace: str = "ftgo", given: str | None = None, seconds: float = 600) -> str:
    return run("kubectl", "--namespace", namespace, *command, given=given, seconds=seconds)


def get(kinds: str, *selection: str, namespace: str = "ftgo") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        kubectl("get", kinds, *selection, "--output", "json", namespace=namespace)
    )["items"]
    return found


def apply(*objects: dict[str, Any], namespace: str = "ftgo") -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    kubectl("apply", "--filename", "-", namespace=namespace, given=given)


def until(found: Callable[[], T], seconds: float, complaint: Callable[[], str], every: float = 0.25) -> T:
    """What it finds, as soon as that is anything. Raises Failed with the complaint after so many seconds without."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        if time.monotonic() > deadline:
            raise Failed(complaint())
        time.sleep(every)
    return result


class StandIn:
    """One node, from programs that are compiled once (K8S_STATE, 10 to 20 minutes) and then kept. Needs root."""

    name = "a stand-in of one node"

    def __init__(self, source: Path) -> None:
        if os.geteuid() != 0:
            raise NoClusterError("the stand-in for a cluster needs root")
        self.state = Path(os.environ.get("K8S_STATE", "/var/lib/k8s-standin"))
        self.scratch = Path(tempfile.mkdtemp(prefix="ftgo-k8s-"))
        self.folder = self.scratch / "standin"
        shutil.copytree(source, self.folder)
        run("chmod", "-R", "u+w", self.folder)
        self.environment = {**os.environ, "K8S_METRICS": "1"}
        self.up = False

    def start(self, images: Sequence[str]) -> None:
        """Raises NoClusterError when its programs cannot be compiled, or do not run here."""
        try:
            if not (self.state / "bin/metrics-server").exists():
                print("compiling the stand-in for a cluster (once, 10 to 20 minutes)", flush=True)
                # Ended with all compilers that it has started.
                limited = ("timeout", str(BUILD_SECONDS), "nice", self.folder / "build")
                run(*limited, seconds=BUILD_SECONDS + 60, env=self.environment)
            self._run("down", "--wipe")
            self.up = True
            self._up()
        except (Failed, subprocess.TimeoutExpired) as error:
            self.stop()
            raise NoClusterError(f"the stand-in for a cluster does not start: {error}") from error
        os.environ["KUBECONFIG"] = str(self.state / "kubeconfig")
        os.environ["PATH"] = f"{self.state / 'bin'}:{os.environ['PATH']}"
        self.load(images)

    def _up(self) -> None:
        """Goes on where it stood. On a busy machine it asks for a name before the DNS can answer, and gives up."""
        for _ in range(4):
            with contextlib.suppress(Failed):
                return self._run("up")
        self._run("up")

    def _run(self, program: str, *arguments: str) -> None:
        # Its processes outlive it, and must not hold our pipe.
        with (self.scratch / "log").open("w") as log:
            done = subprocess.run(
                [self.folder / program, *arguments],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=600,
            )  # fmt: skip
        said = (self.scratch / "log").read_text()
        if done.returncode != 0:
            raise Failed(f"{program} {' '.join(arguments)}: {said}")

    def load(self, images: Sequence[str]) -> None:
        self._run("load", *images)

    def restart_node(self) -> None:
        self._run("down")
        self._up()

    def stop(self) -> None:
        """May repeat."""
        if self.up:
            self._run("down", "--wipe")
            self.up = False
        shutil.rmtree(self.scratch, ignore_errors=True)


class Context:
    """A cluster that runs already, by its name in kubectl's configuration. It keeps the images."""

    def __init__(self, name: str) -> None:
        self.name = name
        contexts = json.loads(run("kubectl", "config", "view", "--output", "json"))
        cluster = next((c["context"]["cluster"] for c in contexts["contexts"] or () if c["name"] == name), None)
        if cluster is None:
            raise NoClusterError(f"kubectl knows no context {name}")
        server = next(c["cluster"]["server"] for c in contexts["clusters"] if c["name"] == cluster)
        local = name.startswith(LOCAL_CONTEXTS) or urlsplit(server).hostname in {"127.0.0.1", "::1", "localhost"}
        if not local and not _agreed(f"{name} ({server}) is not a local cluster."):
            raise NoClusterError(f"{name} is not a local cluster, and nobody has agreed")
        self.begun = False
        # Whatever the context is later: a file of our own.
        self.scratch = Path(tempfile.mkdtemp(prefix="ftgo-k8s-"))
        chosen = run("kubectl", "config", "view", "--raw", "--flatten", "--minify", "--context", name)
        (self.scratch / "kubeconfig").write_text(chosen)
        (self.scratch / "kubeconfig").chmod(0o600)

    def start(self, images: Sequence[str]) -> None:
        os.environ["KUBECONFIG"] = str(self.scratch / "kubeconfig")
        if get("namespaces", "--selector", "kubernetes.io/metadata.name=ftgo"):
            raise NoClusterError("this cluster has a namespace ftgo already: delete it first, k8s-try begins with none")
        self.begun = True
        self.load(images)

    def load(self, images: Sequence[str]) -> None:
        if self.name.startswith("kind-"):
            run("kind", "load", "docker-image", "--name", self.name.removeprefix("kind-"), *images)
        elif self.name.startswith("k3d-"):
            run("k3d", "image", "import", "--cluster", self.name.removeprefix("k3d-"), *images)
        elif self.name.startswith("minikube"):
            run("minikube", "--profile", self.name, "image", "load", *images)
        else:
            print(f"the images have to be there already: {' '.join(images)}")

    def stop(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} {_ABOUT} Go on? [y/N] ") == "y"


def find() -> StandIn | Context:
    """K8S_CONTEXT, else K8S_STANDIN (default: beside the checkout). Raises NoClusterError."""
    if shutil.which("docker") is None:
        raise NoClusterError("there is no Docker here, to build the images with")
    if context := os.environ.get("K8S_CONTEXT"):
        return Context(context)
    source = Path(os.environ.get("K8S_STANDIN") or ROOT / "../shared/standins/k8s")
    if not (source / "up").exists():
        raise NoClusterError("no stand-in for a cluster here; K8S_CONTEXT=<context of kubectl> takes one that runs")
    return StandIn(source)
