"""Tries the manifests on a cluster: ``make k8s-try``

Builds the images, takes a cluster (``cluster.py``), rolls ``local`` out, and does under load what happens to a cluster:
pods that go, restarts, a new version with its migration, more and fewer pods, a node that is drained, a node that
restarts. A client who repeats nothing (``load.py``) places orders all the while. Every step says what was seen. Exit
code 1 when it is not what should be, 77 when there is no cluster. Leaves nothing behind but images in Docker's engine.

``run.py STEP...`` does the named steps only, after the first rollout.
"""

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from client import CLIENTS, Load, place, pod, urls, wait_for_end
from cluster import ROOT, Context, Failed, NoClusterError, apply, find, get, kubectl, run, until
from databases import SERVICES, check_effects, dead_letters, sql, unsettled
from policies import STRANGERS, Policies
from versions import build_next, local_with, newest_revision
from workloads import (
    FTGO,
    LOCAL,
    pods_of,
    rollout,
    scale,
    wait_for_replicas,
    wait_until_gone,
    wait_until_ready,
    wait_until_replaced,
)

IMAGES = (*(f"ftgo-{s}" for s in SERVICES), "ftgo-tools", "ftgo-tests", "postgres:17", "apache/kafka:4.1.1")
RATE = 4  # rounds a second, of five requests each
Said = str | None


class Try:
    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.passed = 0
        self.scratch = Path(tempfile.mkdtemp(prefix="ftgo-k8s-try-"))
        self.known_dead_letters = dict.fromkeys(SERVICES, "0")  # of the journeys, which forge messages
        self._tags: list[str] = []

    # ------------------------------------------------------------ steps

    def step(self, name: str, do: Callable[[], Said]) -> None:
        print(f"k8s: {name} ... ", end="", flush=True)
        began = time.monotonic()
        said = do()
        print(f"ok, {time.monotonic() - began:.0f} s{f'; {said}' if said else ''}", flush=True)
        self.passed += 1

    def build(self) -> Said:
        for service in SERVICES:
            run("docker", "build", "--quiet", "--build-arg", f"SERVICE={service}", "--tag", f"ftgo-{service}", ROOT)
        for target in ("tools", "tests"):
            run("docker", "build", "--quiet", "--target", target, "--tag", f"ftgo-{target}", ROOT)
        return None

    def start(self) -> Said:
        self.cluster.start(IMAGES)
        version = run("kubectl", "version").splitlines()[-1]
        return f"{self.cluster.name}, {version}"

    def first_rollout(self) -> Said:
        run("kubectl", "apply", "--filename", ROOT / "k8s/base/namespace.yaml")
        kubectl("apply", "--filename", "-", given=run(ROOT / "k8s/secrets", "local"))
        began = time.monotonic()
        rollout(LOCAL)
        took = time.monotonic() - began
        labels = {"ftgo-client": "true", "ftgo-monitoring": "true"}
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLIENTS, "labels": labels}})
        return f"k8s/rollout local took {took:.0f} s (at most 40 on two quiet cores)"

    def journeys(self) -> Said:
        """The end-to-end tests, from inside. They write to Kafka, and read the metrics, as no client may."""
        apply(Policies.clients_to_kafka())
        env = {**urls(), "FTGO_KAFKA_BOOTSTRAP": "kafka:9092"}
        for service in SERVICES:
            url = env[f"FTGO_{service.upper()}_URL"]
            env[f"FTGO_{service.upper()}_METRICS_URL"] = url.replace(f"{service}-http", f"{service}-processes")
        apply(pod("journeys", "ftgo-tests", env=env), namespace=CLIENTS)
        try:
            log = wait_for_end("journeys", 600)
            self.known_dead_letters = dead_letters()
        finally:
            kubectl("delete", "networkpolicy", "clients-to-kafka")
        return log.strip().splitlines()[-1].strip("= ")

    # ------------------------------------------------------------ under load

    @contextlib.contextmanager
    def load(self, rate: float = RATE) -> Iterator[Load]:
        """Orders all the while; at the end all of them have settled, each with one effect in every service."""
        load = Load(rate)
        try:
            yield load
        except Failed as error:
            with contextlib.suppress(Failed):
                load.stop()
            raise Failed(f"{error}\nrequests that failed: {load.failed}") from error
        self.placed = load.stop()
        check_effects(self.known_dead_letters)

    def deleted_pods(self) -> Said:
        """One pod of each kind after the other. Requests may fail meanwhile; orders that were taken settle."""
        seen = []
        with self.load() as load:
            for owner in ("postgres", "kafka", *(f"{s}-{p}" for s in SERVICES for p in ("api", "worker", "relay"))):
                (name,) = (p["metadata"]["name"] for p in pods_of(owner))
                kubectl("delete", "pod", name, "--wait=true")
                ready = wait_until_ready(owner)
                late = load.wait_until_settled_after(ready)
                load.wait_until_nothing_is_old()
                if owner in {"postgres", "kafka"}:
                    seen.append(f"{owner}: an order settled {late:.1f} s after it was ready")
                    if late > 10:
                        raise Failed(f"{owner}: the next order settled {late:.1f} s after it was ready, at most 10 s")
        return f"{'; '.join(seen)}; {self.placed['placed']} orders, all settled"

    def rolling_restart(self) -> Said:
        """With two of each, no request fails: not of a new connection, not of one that was kept."""
        scale(2)
        said = [self.restarted_under_load("with policies")]
        kubectl("delete", "networkpolicy", "--all")
        said.append(self.restarted_under_load("without policies"))
        rollout(LOCAL)
        scale(1)
        return "; ".join(said)

    def restarted_under_load(self, words: str) -> str:
        with self.load() as load:
            began = time.time()
            kubectl("rollout", "restart", "deployment", "--selector", FTGO)
            wait_until_replaced()
            load.wait_for_requests(1000, began)
            failed, requests = load.failed_since(began), load.requests_since(began)
            if failed:
                raise Failed(f"{len(failed)} of {requests} requests failed {words}")
        return f"0 of {requests} requests failed {words}"

    def failing_migration(self) -> Said:
        """Ends the rollout with its log, at once, and the old version runs on."""
        image = self.next_version("ftgo-order", "broken", newest_revision() + 1, "SELECT 1 / 0")
        began = time.monotonic()
        try:
            rollout(local_with(image, self.scratch))
        except Failed as error:
            said = str(error)
        else:
            raise Failed("a rollout with a migration that fails has succeeded")
        took = time.monotonic() - began
        for words in ("job order-migrate failed", "division by zero"):
            if words not in said:
                raise Failed(f'the rollout does not say "{words}":\n{said}')
        if {p["spec"]["containers"][0]["image"] for p in pods_of("order-api")} != {"ftgo-order"}:
            raise Failed("the old version has gone")
        rollout(LOCAL)
        return f"told with its log {took:.0f} s after the rollout began"

    def second_version(self) -> Said:
        """To a version that needs a new column, and to one that does without an old one: the old version runs on beside
        either migration."""
        steps = [
            ("expand", "ALTER TABLE orders ADD COLUMN tried_at timestamptz DEFAULT now()"),
            ("contract", "ALTER TABLE orders DROP COLUMN tried_at"),
        ]
        image = "ftgo-order"
        with self.load() as load:
            began = time.time()
            for number, (name, statement) in enumerate(steps, newest_revision() + 1):
                image = self.next_version(image, name, number, statement)
                rollout(local_with(image, self.scratch))
                load.wait_for_requests(load.requests_since(began) + 50, began)
                if sql("order", "SELECT version_num FROM alembic_version") != f"{number:04}":
                    raise Failed(f"the migration {name} has not run")
            wait_until_replaced()  # an old pod goes on ending, half a minute at most, when the rollout is done
            running = {p["spec"]["containers"][0]["image"] for p in pods_of("order-api")}
            if running != {image}:
                raise Failed(f"{running} runs instead of {image}")
            failed, requests = load.failed_since(began), load.requests_since(began)
            if failed:
                raise Failed(f"{len(failed)} of {requests} requests failed")
        return f"expand and contract, {requests} requests, 0 failed"

    def next_version(self, image: str, name: str, number: int, statement: str) -> str:
        made = build_next(image, name, number, statement, self.scratch)
        self._tags.append(made)
        self.cluster.load([made])
        return made

    def autoscaler(self) -> Said:
        """That of production, with a shorter memory: more pods of order's API under load, and one again afterwards."""
        try:
            until(metrics_are_there, 120, lambda: "this cluster has no metrics", every=2)
        except Failed as error:
            return f"NOT TRIED: {error}"
        production = run("kubectl", "kustomize", ROOT / "k8s/overlays/production")
        (scaler,) = (
            d for d in yaml.safe_load_all(production)
            if d["kind"] == "HorizontalPodAutoscaler" and d["metadata"]["name"] == "order-api"
        )  # fmt: skip
        scaler["spec"] |= {"minReplicas": 1, "maxReplicas": 3}
        scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 15
        kubectl("scale", "deployment/order-api", "--replicas=1")
        with self.load(3 * RATE) as load:
            apply(scaler)
            up = wait_for_replicas("order-api", lambda n: n > 1, 300)
            began = time.time()
            load.wait_for_requests(load.requests_since(began) + 100, began)
            most = len(pods_of("order-api"))
        down = wait_for_replicas("order-api", lambda n: n == 1, 300)
        kubectl("delete", "horizontalpodautoscaler", "order-api")
        return f"{most} pods {up:.0f} s after the load began, one {down:.0f} s after its end"

    def drained_node(self) -> Said:
        """On one node: what was on it waits until it takes pods again. What was under way goes on."""
        node = get("nodes")[0]["metadata"]["name"]

        def drain() -> None:
            kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s")
            kubectl("uncordon", node)

        return self.interrupted_orders(drain)

    def restarted_node(self) -> Said:
        """Every process of the node ends at once, as without power, and the node starts again."""
        if not hasattr(self.cluster, "restart_node"):
            return "NOT TRIED: the nodes of this cluster are somebody's"
        return self.interrupted_orders(self.cluster.restart_node)

    def interrupted_orders(self, interrupt: Callable[[], None]) -> str:
        """Orders that wait for the kitchen when the interruption comes have all settled afterwards."""
        kubectl("scale", "deployment/kitchen-worker", "--replicas=0")
        wait_until_gone("kitchen-worker")
        orders = place(20)
        interrupt()
        began = time.monotonic()
        kubectl("scale", "deployment/kitchen-worker", "--replicas=1")
        until(
            lambda: not unsettled(orders),
            180,
            lambda: f"{unsettled(orders)} of {len(orders)} orders have not settled after 180 s",
        )
        took = time.monotonic() - began
        check_effects(self.known_dead_letters)
        return f"{len(orders)} orders that were under way had settled {took:.0f} s after it was back"

    def policies(self) -> Said:
        """What is allowed works, and all else is refused: by the policies, since it is open without them."""
        policies = Policies()
        try:
            said = policies.check()
            kubectl("delete", "networkpolicy", "--all")
            said = f"{said}; {policies.check_without()}"
        finally:
            policies.close()
        rollout(LOCAL)
        return said

    def dry_run(self) -> Said:
        """The API server checks what cannot be rolled out here."""
        definitions = ROOT / "../shared/standins/k8s/crds"
        overlays = ["external"]
        if definitions.is_dir() and not isinstance(self.cluster, Context):  # they would stay in somebody's cluster
            overlays += ["production", "production-tailing", "--crds", str(definitions)]
        said = run(ROOT / "k8s/dry-run", *overlays)
        return "; ".join(line for line in said.splitlines() if "accepted" in line)

    # ------------------------------------------------------------ all of it

    def run(self, chosen: list[str]) -> None:
        self.step("images", self.build)
        self.step("a cluster, with the images", self.start)
        self.step("rolled out", self.first_rollout)
        for do in STEPS:
            if not chosen or do.__name__ in chosen:
                self.step(do.__name__.replace("_", " "), partial(do, self))
        print(f"k8s: {self.passed} passed, 0 failed")

    def clean(self) -> None:
        """May repeat, and at any time."""
        if isinstance(self.cluster, Context) and self.cluster.begun:
            run("kubectl", "delete", "namespace", "ftgo", CLIENTS, STRANGERS, "--ignore-not-found")
        self.cluster.stop()
        for tag in self._tags:
            run("docker", "image", "rm", tag)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def tell(self) -> None:
        """What an operator would look at after a failure."""
        for command in (["get", "pods", "--output", "wide"], ["get", "events", "--sort-by", ".lastTimestamp"]):
            with contextlib.suppress(Failed):
                print("\n".join(kubectl(*command).splitlines()[-40:]))


STEPS: list[Callable[[Try], Said]] = [
    Try.journeys,
    Try.policies,
    Try.deleted_pods,
    Try.rolling_restart,
    Try.failing_migration,
    Try.second_version,
    Try.autoscaler,
    Try.drained_node,
    Try.restarted_node,
    Try.dry_run,
]


def metrics_are_there() -> bool:
    """Those of a new pod come after a quarter of a minute."""
    with contextlib.suppress(Failed):
        return bool(kubectl("top", "pods"))
    return False


def main() -> int:
    try:
        cluster = find()
    except NoClusterError as error:
        print(f"k8s: not tried on a cluster: {error}")
        return 77
    attempt = Try(cluster)
    try:
        attempt.run(sys.argv[1:])
    except NoClusterError as error:
        print(f"\nk8s: not tried on a cluster: {error}")
        return 77
    except Failed as error:
        print("FAILED")
        attempt.tell()
        print(f"k8s: failed: {error}")  # last: where one looks first
        return 1
    finally:
        attempt.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())
