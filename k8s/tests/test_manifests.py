"""The manifests are valid, and they say what the code says."""

import ast
import importlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import pytest
import yaml
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_local import roles
from ftgo_local.postgres import SETTINGS
from ftgo_messaging.transports.kafka.topics import PARTITIONS
from ftgo_service_kit.app import create_app
from ftgo_service_kit.database import HINTS, MESSAGES, RELAY, WRITES
from ftgo_service_kit.settings import ServiceSettings
from ftgo_service_kit.watched import STOP_SECONDS
from pydantic import AliasChoices

ROOT = Path(__file__).parents[2]
SERVICES = ("consumer", "order", "kitchen", "accounting")
PROCESSES = ("api", "worker", "relay")
KUBERNETES = "1.37"
"""The newest whose schemas kubernetes-validate 1.37 brings along."""

Manifest = dict[str, Any]


def settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"ftgo_{service}.settings")
    found: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def variables_of(settings: type[ServiceSettings]) -> set[str]:
    """The names of the environment that the settings read; those with a short form beside it have two."""
    known: set[str] = set()
    for name, field in settings.model_fields.items():
        match field.validation_alias:
            case AliasChoices(choices=choices):
                known.update(str(choice) for choice in choices)
            case None:
                known.add(f"{settings.model_config['env_prefix']}{name}".upper())
            case alias:
                known.add(str(alias))
    return known


def of_kind(manifests: list[Manifest], *kinds: str) -> Iterator[Manifest]:
    return (m for m in manifests if m["kind"] in kinds)


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (m for m in of_kind(manifests, kind) if m["metadata"]["name"] == name)
    return found


def pods(manifests: list[Manifest]) -> list[tuple[str, dict[str, Any]]]:
    """(name, pod spec) of whatever runs pods."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return [(m["metadata"]["name"], m["spec"]["template"]["spec"]) for m in of_kind(manifests, *kinds)]


def custom(manifest: Manifest) -> bool:
    return "." in manifest["apiVersion"].split("/")[0] and not re.search(r"(^|\.)k8s\.io/", manifest["apiVersion"])


def validate_custom(manifest: Manifest) -> None:
    """Against KEDA's own schema, or ours of the part that we use of another operator's. Raises ValidationError."""
    kind = manifest["kind"]
    if kind == "ScaledObject":
        crd = yaml.safe_load((keda() / "keda.sh_scaledobjects.yaml").read_text())
        (version,) = (v for v in crd["spec"]["versions"] if v["name"] == manifest["apiVersion"].split("/")[1])
        # What the API server reads is OpenAPI 3.0, which counts as draft 4.
        jsonschema.Draft4Validator(closed(version["schema"]["openAPIV3Schema"])).validate(manifest)
    else:
        schema = json.loads((ROOT / f"k8s/schemas/{kind}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(manifest)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without room for fields that it does not name: the API server would drop them and say nothing."""
    schema = dict(schema)
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        schema["properties"] = {name: closed(s) for name, s in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema[inner] = closed(schema[inner])
    return schema


def keda() -> Path:
    """The folder with what `k8s/check` takes out of KEDA's Go module."""
    if folder := os.environ.get("FTGO_KEDA"):
        return Path(folder)
    pytest.skip("KEDA's schema is not here: `make k8s-check` gets it")


# ---------------------------------------------------------------- valid


def test_every_object_fits_its_schema(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if custom(manifest):
            validate_custom(manifest)
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_custom_objects_fit_the_operators_own_definitions(manifests: list[Manifest]) -> None:
    """Where those are at hand: no package carries them."""
    definitions = [yaml.safe_load(file.read_text()) for file in definitions_folder().glob("*.yaml")]
    schemas = {
        (d["spec"]["names"]["kind"], f"{d['spec']['group']}/{v['name']}"): v["schema"]["openAPIV3Schema"]
        for d in definitions
        for v in d["spec"]["versions"]
    }
    for manifest in manifests:
        if custom(manifest):
            schema = schemas[manifest["kind"], manifest["apiVersion"]]
            jsonschema.Draft4Validator(closed(schema)).validate(manifest)


def definitions_folder() -> Path:
    folder = ROOT.parent / "shared/standins/k8s/crds"
    if not folder.is_dir():
        pytest.skip(f"no definitions of Strimzi and CloudNativePG in {folder}")
    return folder


@pytest.mark.parametrize("kind", ["Kafka", "KafkaNodePool", "KafkaTopic", "Cluster", "ScaledObject"])
def test_a_misspelt_field_of_a_custom_object_is_found(production: list[Manifest], kind: str) -> None:
    manifest = next(of_kind(production, kind))
    spoilt = {**manifest, "spec": {**manifest["spec"], "replicaz": 3}}
    with pytest.raises(jsonschema.ValidationError, match="replicaz"):
        validate_custom(spoilt)


def test_all_objects_have_a_namespace_and_a_phase_of_the_rollout(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "ftgo"
        assert manifest["metadata"]["labels"]["rollout-phase"] in {"platform", "migrate", "rollout"}, manifest
        expected = {"Job": "migrate", "Deployment": "rollout", "NetworkPolicy": "platform"}
        kind = manifest["kind"]
        assert manifest["metadata"]["labels"]["rollout-phase"] == expected.get(
            kind, manifest["metadata"]["labels"]["rollout-phase"]
        )


# ---------------------------------------------------------------- as the code says


@pytest.mark.parametrize("service", SERVICES)
def test_ports_and_variables_are_those_of_the_settings(manifests: list[Manifest], service: str) -> None:
    settings = settings_of(service)
    port = settings.model_fields["port"].default
    known = variables_of(settings)
    for process in (*PROCESSES, "migrate"):
        kind = "Job" if process == "migrate" else "Deployment"
        manifest = named(manifests, kind, f"{service}-{process}")
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        env = {e["name"]: e for e in container["env"]}
        assert set(env) - {"FTGO_SERVICE"} <= known
        required = {f"FTGO_{service.upper()}_DATABASE_URL", "FTGO_KAFKA_BOOTSTRAP"}
        assert required <= set(env)
        assert env["FTGO_SERVICE"]["value"] == service
        assert env[f"FTGO_{service.upper()}_PORT"]["value"] == str(port)
        assert env[f"FTGO_{service.upper()}_HOST"]["value"] == "0.0.0.0"  # noqa: S104
        assert container["command"] == ["python", "-m", f"ftgo_$(FTGO_SERVICE).entrypoints.{process}"]
        assert container["image"].split(":")[0] == f"ftgo-{service}"
        if kind == "Deployment":
            assert container["ports"] == [{"name": "http", "containerPort": port}]
    # All processes of the service and of no other, ready or not, each by its own address.
    every = named(manifests, "Service", f"{service}-processes")["spec"]
    assert (every["clusterIP"], every["publishNotReadyAddresses"]) == ("None", True)
    assert every["selector"] == {"app.kubernetes.io/part-of": "ftgo", "app.kubernetes.io/name": service}
    assert every["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    http = named(manifests, "Service", f"{service}-http")
    assert http["spec"]["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("process", [*PROCESSES, "migrate"])
def test_every_command_is_a_module_of_the_service(service: str, process: str) -> None:
    assert (ROOT / f"services/{service}/src/ftgo_{service}/entrypoints/{process}.py").exists()


def test_probes_ask_what_the_application_answers(manifests: list[Manifest]) -> None:
    paths = set(create_app("FTGO", "").openapi()["paths"])
    for deployment in of_kind(manifests, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
        assert {"/livez", "/readyz", "/metrics"} <= paths


def test_grace_is_longer_than_the_drain(manifests: list[Manifest]) -> None:
    drain = drain_seconds()
    assert drain > 10
    for deployment in of_kind(manifests, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] > pause + drain


def drain_seconds() -> float:
    """The sum of all time limits in Service._stop, one after the other, with that of the consumers."""
    tree = ast.parse((ROOT / "shared/service_kit/src/ftgo_service_kit/service.py").read_text())
    (stop,) = (n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef) and n.name == "_stop")
    limits = []
    for call in (n for n in ast.walk(stop) if isinstance(n, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id == "within":
            limits.append(call.args[0])
        limits += [k.value for k in call.keywords if k.arg == "timeout"]
    assert limits
    return float(sum(ast.literal_eval(limit) for limit in limits)) + STOP_SECONDS


def test_topics_are_the_channels_of_the_contract(production: list[Manifest]) -> None:
    topics = list(of_kind(production, "KafkaTopic"))
    assert sorted(t["metadata"]["name"] for t in topics) == sorted(c.name for c in ALL_CHANNELS)
    for topic in topics:
        assert (topic["spec"]["partitions"], topic["spec"]["replicas"]) == (PARTITIONS, 3)
        assert topic["spec"]["config"]["min.insync.replicas"] == 2


def test_workers_are_scaled_by_the_groups_they_belong_to(production: list[Manifest]) -> None:
    for service in SERVICES:
        scaled = named(production, "ScaledObject", f"{service}-worker")["spec"]
        groups = {t["metadata"]["consumerGroup"] for t in scaled["triggers"]}
        assert groups == consumer_groups(service)
        assert scaled["maxReplicaCount"] <= PARTITIONS
        named(production, "Deployment", scaled["scaleTargetRef"]["name"])


def consumer_groups(service: str) -> set[str]:
    """The names that the service's code gives to MessageHandlers and to Orchestrator.handlers."""
    names = set()
    for file in (ROOT / f"services/{service}/src").rglob("*.py"):
        for call in (n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call) and n.args):
            function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            first = call.args[0]
            if function in {"MessageHandlers", "handlers"} and isinstance(first, ast.Constant):
                names.add(str(first.value))
    return names


def test_a_node_or_a_zone_takes_one_pod_of_a_deployment_at_most_first(manifests: list[Manifest]) -> None:
    """Spread over zones and nodes, and drained one by one; each by the labels of its own pods and of no others."""
    labels = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"] for d in of_kind(manifests, "Deployment")
    }
    budgets = {b["metadata"]["name"]: b["spec"] for b in of_kind(manifests, "PodDisruptionBudget")}
    assert set(labels) == {f"{s}-{p}" for s in SERVICES for p in PROCESSES}

    def chosen(selector: dict[str, str]) -> list[str]:
        return [name for name, own in labels.items() if selector.items() <= own.items()]

    for deployment in of_kind(manifests, "Deployment"):
        name = deployment["metadata"]["name"]
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {s["topologyKey"] for s in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        assert all(chosen(s["labelSelector"]["matchLabels"]) == [name] for s in spread)
        assert budgets[name]["maxUnavailable"] == 1
        assert chosen(budgets[name]["selector"]["matchLabels"]) == [name]
        assert chosen(deployment["spec"]["selector"]["matchLabels"]) == [name]


def test_autoscalers_find_their_deployments(production: list[Manifest]) -> None:
    targets = [h["spec"]["scaleTargetRef"]["name"] for h in of_kind(production, "HorizontalPodAutoscaler")]
    assert sorted(targets) == sorted(f"{s}-api" for s in SERVICES)
    for target in targets:
        # A fixed number would be set again by every rollout, against the autoscaler.
        assert "replicas" not in named(production, "Deployment", target)["spec"]


def test_all_pools_together_fit_into_postgresql(production: list[Manifest]) -> None:
    reads = ServiceSettings.model_fields["pool_size"].default
    # Of the upkeep: a connection for probes everywhere, the count of the outbox in the API, two more in the worker.
    of_an_api, of_a_worker, of_a_relay = WRITES + 2 + reads + 1, MESSAGES + 3 + 1, RELAY + 1 + HINTS
    for service in SERVICES:
        api = named(production, "HorizontalPodAutoscaler", f"{service}-api")["spec"]["maxReplicas"]
        worker = named(production, "ScaledObject", f"{service}-worker")["spec"]["maxReplicaCount"]
        relay = named(production, "Deployment", f"{service}-relay")["spec"]["replicas"]
        # Each has one pod more during a rollout; the migration and the operator connect, too.
        wanted = (api + 1) * of_an_api + (worker + 1) * of_a_worker + (relay + 1) * of_a_relay
        limit = roles_of(production, service)[f"ftgo_{service}"]["connectionLimit"]
        parameters = named(production, "Cluster", f"{service}-db")["spec"]["postgresql"]["parameters"]
        assert wanted <= limit
        of_a_tailing_relay = (relay + 1) * (RELAY + 1)
        assert of_a_tailing_relay <= roles.RELAY_CONNECTIONS
        assert limit + roles.RELAY_CONNECTIONS + 10 <= int(parameters["max_connections"])


def roles_of(manifests: list[Manifest], service: str) -> dict[str, dict[str, Any]]:
    cluster = named(manifests, "Cluster", f"{service}-db")["spec"]
    assert cluster["bootstrap"]["initdb"]["owner"] == f"ftgo_{service}_owner"
    return {role["name"]: role for role in cluster["managed"]["roles"]}


def test_a_relay_that_tails_has_a_role_of_its_own_and_nobody_else_may_replicate(
    production: list[Manifest], tailing: list[Manifest]
) -> None:
    for service in SERVICES:
        name = f"ftgo_{service}"
        assert set(roles_of(production, service)) == {name, f"{name}_owner"}
        found = roles_of(tailing, service)
        assert {role for role, options in found.items() if options.get("replication")} == {f"{name}_relay"}
        assert all(0 < options["connectionLimit"] <= 250 for options in found.values())
        parameters = named(tailing, "Cluster", f"{service}-db")["spec"]["postgresql"]["parameters"]
        assert parameters["wal_level"] == "logical"
        assert parameters["max_slot_wal_keep_size"] not in {"", "-1"}
        for kind, process in (("Deployment", "relay"), ("Job", "migrate")):
            (container,) = named(tailing, kind, f"{service}-{process}")["spec"]["template"]["spec"]["containers"]
            env = {e["name"]: e for e in container["env"]}
            assert env["FTGO_RELAY"]["value"] == "log-tailing"
            secret = env[f"FTGO_{service.upper()}_RELAY_DATABASE_URL"]["valueFrom"]["secretKeyRef"]["name"]
            assert secret == found[f"{name}_relay"]["passwordSecret"]["name"]


def test_the_servers_are_set_up_alike(local: list[Manifest]) -> None:
    """wal_level and a limit to what an absent relay keeps; connections for the roles of all services."""
    container = named(local, "StatefulSet", "postgres")["spec"]["template"]["spec"]["containers"][0]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["postgres"]
    assert container["args"] == compose["command"][1:]
    arguments = dict(argument.removeprefix("-c").split("=") for argument in container["args"])
    names = ("wal_level", "max_replication_slots", "max_wal_senders", "max_slot_wal_keep_size", "max_connections")
    for name in names:
        assert arguments[name] == SETTINGS[name]
    script = (ROOT / "compose/databases.sh").read_text()
    limits = re.findall(r"(\bNOREPLICATION|\bREPLICATION) CONNECTION LIMIT (\d+)", script)
    assert limits == [
        ("NOREPLICATION", str(roles.OWNER_CONNECTIONS)),
        ("NOREPLICATION", str(roles.SERVICE_CONNECTIONS)),
        ("REPLICATION", str(roles.RELAY_CONNECTIONS)),
    ]


# ---------------------------------------------------------------- safe


def test_pods_may_do_nothing_they_need_not(manifests: list[Manifest]) -> None:
    for name, spec in pods(manifests):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security.get("readOnlyRootFilesystem", name in {"kafka", "postgres"}) is True
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_secrets_are_referred_to_and_never_contained(manifests: list[Manifest]) -> None:
    assert not list(of_kind(manifests, "Secret"))
    for _, spec in pods(manifests):
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if re.search(r"PASSWORD$|DATABASE_URL|TOKEN", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]


def test_each_service_has_a_database_secret_of_its_own(manifests: list[Manifest]) -> None:
    secrets: dict[str, set[str]] = {s: set() for s in SERVICES}
    for name, spec in pods(manifests):
        for variable in spec["containers"][0].get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                secrets[name.split("-")[0]].add(variable["valueFrom"]["secretKeyRef"]["name"])
    assert all({f"{s}-db-service", f"{s}-db-owner"} <= secrets[s] for s in SERVICES)
    assert all(not a & b for a, b in combinations(secrets.values(), 2))


def test_all_traffic_is_denied_first(manifests: list[Manifest]) -> None:
    default = named(manifests, "NetworkPolicy", "default-deny")["spec"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_local_passwords_are_those_that_the_manifests_ask_for() -> None:
    made = subprocess.run([ROOT / "k8s/secrets", "local"], capture_output=True, text=True, check=True).stdout
    secrets = {secret["metadata"]["name"]: secret["stringData"] for secret in yaml.safe_load_all(made)}
    for service in SERVICES:
        for role, user in (("service", f"ftgo_{service}"), ("owner", f"ftgo_{service}_owner")):
            password = secrets["postgres-passwords"][f"{user}.password"]
            uri = f"postgresql://{user}:{password}@postgres:5432/ftgo_{service}"
            assert secrets[f"{service}-db-{role}"] == {"username": user, "password": password, "uri": uri}


# ---------------------------------------------------------------- compose says the same


def test_databases_are_made_alike_in_compose_and_here() -> None:
    here, there = (ROOT / f"{folder}/databases.sh" for folder in ("k8s/overlays/local", "compose"))
    assert here.read_text() == there.read_text()


def test_compose_keeps_its_promises() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    megabytes = sum(int(s["mem_limit"].removesuffix("m")) for s in compose.values())
    assert megabytes * 1024 * 1024 <= 2_500_000_000
    for name, service in compose.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert not [k for k in service.get("environment", {}) if k.endswith("PASSWORD")], name
    for service in SERVICES:
        settings = settings_of(service)
        port = str(settings.model_fields["port"].default)
        environment = compose[service]["environment"]
        assert environment[f"FTGO_{service.upper()}_PORT"] == port
        assert compose[service]["ports"][0].endswith(f":{port}")
        assert float(compose[service]["stop_grace_period"].removesuffix("s")) > drain_seconds()
