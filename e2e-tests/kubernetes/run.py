"""Tries the manifests on a cluster: ``make k8s-try``

Builds the images, takes a cluster (``cluster.py``), rolls ``local`` out, and does under load what happens to a cluster:
pods that go, restarts, a new version with its migration, more and fewer pods, a node that is drained, a node that
restarts. A client who repeats nothing (``load.py``) places orders all the while. Every step says what was seen. Exit
code 1 when it is not what should be, 77 when there is no cluster. Leaves nothing behind but images in Docker's engine.

``run.py STEP...`` does the named steps only, after the first rollout.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from client import CLIENTS, Load, place, pod, urls, wait_for_end
from cluster import ROOT, Context, Failed, NoClusterError, apply, find, get, kubectl, run
from policies import STRANGERS, Policies

SERVICES = ("consumer", "order", "kitchen", "accounting")
IMAGES = (*(f"ftgo-{s}" for s in SERVICES), "ftgo-tools", "ftgo-tests", "postgres:17", "apache/kafka:4.1.1")
VERSIONS = "services/order/src/ftgo_order/migrations/versions"
LOCAL = ROOT / "k8s/overlays/local"
LABEL = "app.kubernetes.io"
FTGO = f"{LABEL}/part-of=ftgo"
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
        self.rollout(LOCAL)
        took = time.monotonic() - began
        labels = {"ftgo-client": "true", "ftgo-monitoring": "true"}
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLIENTS, "labels": labels}})
        return f"k8s/rollout local took {took:.0f} s (at most 40 on two quiet cores)"

    def rollout(self, overlay: Path) -> None:
        run(ROOT / "k8s/rollout", overlay)

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
            self.known_dead_letters = self.dead_letters()
        finally:
            kubectl("delete", "networkpolicy", "clients-to-kafka")
        return log.strip().splitlines()[-1].strip("= ")

    # ------------------------------------------------------------ under load

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        """Orders all the while; at the end all of them have settled, each with one effect in every service."""
        load = Load(RATE)
        try:
            yield load
        except Failed as error:
            with contextlib.suppress(Failed):
                load.stop()
            raise Failed(f"{error}\nrequests that failed: {load.failed}") from error
        self.placed = load.stop()
        self.effects()

    def effects(self) -> None:
        """By the databases themselves: nothing waits, nothing is set aside, nothing was done twice or not at all."""
        waiting = {s: self.sql(s, "SELECT count(*) FROM outbox") for s in SERVICES}
        if {*waiting.values()} != {"0"}:
            raise Failed(f"in the outboxes: {waiting}")
        if (now := self.dead_letters()) != self.known_dead_letters:
            raise Failed(f"dead letters: {now}, before {self.known_dead_letters}")
        approved = self.ids("order", "SELECT id FROM orders WHERE state = 'APPROVED'")
        charged = self.ids("accounting", "SELECT order_id FROM authorizations")
        cooked = self.ids("kitchen", "SELECT id FROM tickets WHERE state <> 'CREATE_PENDING'")
        for what, found in (("charged", charged), ("in the kitchen", cooked)):
            if missing := approved - found:
                raise Failed(f"{len(missing)} approved orders are not {what}: {sorted(missing)[:3]}")

    def dead_letters(self) -> dict[str, str]:
        return {s: self.sql(s, "SELECT count(*) FROM dead_letters") for s in SERVICES}

    def ids(self, service: str, statement: str) -> set[str]:
        return set(self.sql(service, statement).split())

    def sql(self, service: str, statement: str) -> str:
        command = ["psql", "--username=postgres", f"--dbname=ftgo_{service}", "-Atc", statement]
        return kubectl("exec", "postgres-0", "--", *command).strip()

    def deleted_pods(self) -> Said:
        """One pod of each kind after the other. Requests may fail meanwhile; orders that were taken settle."""
        seen = []
        with self.load() as load:
            for owner in ("postgres", "kafka", *(f"{s}-{p}" for s in SERVICES for p in ("api", "worker", "relay"))):
                (name,) = (p["metadata"]["name"] for p in get("pods") if _belongs(p, owner))
                kubectl("delete", "pod", name, "--wait=true")
                ready = self.wait_until_ready(owner)
                late = load.wait_until_settled_after(ready)
                load.wait_until_nothing_is_old()
                if owner in {"postgres", "kafka"}:
                    seen.append(f"{owner}: an order settled {late:.1f} s after it was ready")
                    if late > 10:
                        raise Failed(f"{owner}: the next order settled {late:.1f} s after it was ready, at most 10 s")
        return f"{'; '.join(seen)}; {self.placed['placed']} orders, all settled"

    def wait_until_ready(self, owner: str, seconds: float = 120) -> float:
        """Until one pod of its kind is ready and none is going. The time at which it was seen, since 1970."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pods = [p for p in get("pods") if _belongs(p, owner)]
            going = [p for p in pods if "deletionTimestamp" in p["metadata"]]
            if pods and not going and all(_ready(p) for p in pods):
                return time.time()
            time.sleep(0.1)
        raise Failed(f"{owner} is not ready after {seconds} s")

    def rolling_restart(self) -> Said:
        """With two of each, no request fails: not of a new connection, not of one that was kept."""
        self.scale(2)
        said = [self.restarted_under_load("with policies")]
        kubectl("delete", "networkpolicy", "--all")
        said.append(self.restarted_under_load("without policies"))
        self.rollout(LOCAL)
        self.scale(1)
        return "; ".join(said)

    def restarted_under_load(self, words: str) -> str:
        with self.load() as load:
            began = time.time()
            kubectl("rollout", "restart", "deployment", "--selector", FTGO)
            self.wait_until_replaced()
            load.wait_for_requests(1000, began)
            failed, requests = load.failed_since(began), load.requests_since(began)
            if failed:
                raise Failed(f"{len(failed)} of {requests} requests failed {words}")
        return f"0 of {requests} requests failed {words}"

    def scale(self, replicas: int) -> None:
        kubectl("scale", "deployment", "--selector", FTGO, f"--replicas={replicas}")
        self.wait_until_replaced()

    def wait_until_replaced(self) -> None:
        """Until all pods of the services are of the newest form and ready, and the old ones are gone."""
        kubectl("rollout", "status", "deployment", "--selector", FTGO, "--timeout=300s")
        deadline = time.monotonic() + 120
        while any("deletionTimestamp" in p["metadata"] for p in get("pods")):
            if time.monotonic() > deadline:
                raise Failed("pods do not end")
            time.sleep(0.5)

    def second_version(self) -> Said:
        """To a version that needs a new column, and to one that does without an old one: the old version runs on beside
        either migration."""
        newest = max(int(f.name[:4]) for f in (ROOT / VERSIONS).glob("[0-9]*.py"))
        steps = [
            ("expand", "ALTER TABLE orders ADD COLUMN tried_at timestamptz DEFAULT now()"),
            ("contract", "ALTER TABLE orders DROP COLUMN tried_at"),
        ]
        image = "ftgo-order"
        with self.load() as load:
            began = time.time()
            for number, (name, statement) in enumerate(steps, newest + 1):
                image = self.build_next(image, name, number, statement)
                self.rollout(self.overlay_with(image))
                load.wait_for_requests(load.requests_since(began) + 50, began)
                if self.sql("order", "SELECT version_num FROM alembic_version") != f"{number:04}":
                    raise Failed(f"the migration {name} has not run")
            running = {p["spec"]["containers"][0]["image"] for p in get("pods") if _belongs(p, "order-api")}
            if running != {image}:
                raise Failed(f"{running} runs instead of {image}")
            failed, requests = load.failed_since(began), load.requests_since(began)
            if failed:
                raise Failed(f"{len(failed)} of {requests} requests failed")
        return f"expand and contract, {requests} requests, 0 failed"

    def build_next(self, image: str, name: str, number: int, statement: str) -> str:
        """An image as the one before it, with one migration more. Returns its name."""
        folder = self.scratch / name
        folder.mkdir()
        (folder / "next.py").write_text(
            f'from alembic import op\n\nrevision = "{number:04}"\ndown_revision = "{number - 1:04}"\n\n\n'
            f'def upgrade() -> None:\n    op.execute("{statement}")\n'
        )
        target = f"/app/{VERSIONS.split('/src/')[1]}/{number:04}_{name}.py"
        (folder / "Dockerfile").write_text(f"FROM {image}\nCOPY --chmod=0644 next.py {target}\n")
        tag = f"ftgo-order:try-{name}"
        run("docker", "build", "--quiet", "--tag", tag, folder)
        self._tags.append(tag)
        self.cluster.load([tag])
        return tag

    def overlay_with(self, image: str) -> Path:
        """``local`` with this image of order."""
        folder = self.scratch / "overlay"
        folder.mkdir(exist_ok=True)
        name, tag = image.split(":")
        local = os.path.relpath(ROOT / "k8s/overlays/local", folder.resolve())
        images = f"images:\n  - {{name: {name}, newTag: {tag}}}\n"
        (folder / "kustomization.yaml").write_text(f"resources: [{local}]\n{images}")
        return folder

    def autoscaler(self) -> Said:
        """That of production, with a shorter memory: more pods of order's API under load, and one again afterwards."""
        deadline = time.monotonic() + 120
        while True:  # the metrics of a pod are there after a quarter of a minute
            try:
                kubectl("top", "pods")
                break
            except Failed as error:
                if time.monotonic() > deadline:
                    return f"NOT TRIED: this cluster has no metrics ({str(error).splitlines()[-1]})"
                time.sleep(2)
        production = run("kubectl", "kustomize", ROOT / "k8s/overlays/production")
        (scaler,) = (
            d for d in yaml.safe_load_all(production)
            if d["kind"] == "HorizontalPodAutoscaler" and d["metadata"]["name"] == "order-api"
        )  # fmt: skip
        scaler["spec"] |= {"minReplicas": 1, "maxReplicas": 3}
        scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 15
        kubectl("scale", "deployment/order-api", "--replicas=1")
        with self.load() as load:
            apply(scaler)
            up = self.wait_for_replicas("order-api", lambda n: n > 1, 180)
            began = time.time()
            load.wait_for_requests(load.requests_since(began) + 100, began)
            most = len([p for p in get("pods") if _belongs(p, "order-api")])
        down = self.wait_for_replicas("order-api", lambda n: n == 1, 300)
        kubectl("delete", "horizontalpodautoscaler", "order-api")
        return f"{most} pods {up:.0f} s after the load began, one {down:.0f} s after its end"

    def wait_for_replicas(self, deployment: str, enough: Callable[[int], bool], seconds: float) -> float:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            (found,) = get("deployments", "--field-selector", f"metadata.name={deployment}")
            if enough(found["spec"]["replicas"]):
                return time.monotonic() - began
            time.sleep(1)
        described = kubectl("describe", "horizontalpodautoscaler", deployment)
        raise Failed(f"{deployment} has {found['spec']['replicas']} replicas after {seconds} s\n{described}")

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
        kubectl("wait", "--for", "delete", "pod", "--selector", f"{LABEL}/name=kitchen,{LABEL}/component=worker")
        orders = place(20)
        interrupt()
        began = time.monotonic()
        kubectl("scale", "deployment/kitchen-worker", "--replicas=1")
        while self.unsettled(orders):
            if time.monotonic() - began > 180:
                raise Failed(f"{self.unsettled(orders)} of {len(orders)} orders have not settled after 180 s")
            time.sleep(0.5)
        took = time.monotonic() - began
        self.effects()
        return f"{len(orders)} orders that were under way had settled {took:.0f} s after it was back"

    def unsettled(self, orders: list[str]) -> int:
        among = ",".join(f"'{order}'" for order in orders)
        try:
            pending = f"SELECT count(*) FROM orders WHERE id IN ({among}) AND state <> 'APPROVED'"  # noqa: S608
            return int(self.sql("order", pending))
        except Failed:  # PostgreSQL is starting
            return len(orders)

    def policies(self) -> Said:
        """What is allowed works, and all else is refused: by the policies, since it is open without them."""
        policies = Policies()
        try:
            said = policies.check()
            kubectl("delete", "networkpolicy", "--all")
            said = f"{said}; {policies.check_without()}"
        finally:
            policies.close()
        self.rollout(LOCAL)
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
                self.step(do.__name__.replace("_", " "), lambda do=do: do(self))
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
    Try.second_version,
    Try.autoscaler,
    Try.drained_node,
    Try.restarted_node,
    Try.dry_run,
]


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
        print(f"FAILED\n{error}")
        attempt.tell()
        return 1
    finally:
        attempt.clean()
    return 0


def _belongs(found: dict[str, Any], owner: str) -> bool:
    return re.fullmatch(rf"{owner}-(\d+|[0-9a-z]+-[0-9a-z]{{5}})", found["metadata"]["name"]) is not None


def _ready(found: dict[str, Any]) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


if __name__ == "__main__":
    sys.exit(main())
