"""The overlay external, with a server that knows nothing of FTGO: what k8s/secrets and k8s/databases make of it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from ftgo_local import postgres as embedded
from ftgo_local import roles
from ftgo_local.postgres import Postgres
from ftgo_service_kit.database import HINTS, MESSAGES, RELAY, WRITES, make_engine
from ftgo_service_kit.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICES = ("consumer", "order", "kitchen", "accounting")
ADMIN = "an_administrator"

Manifest = dict[str, Any]
Secrets = dict[str, dict[str, str]]


def run(
    *command: str | Path, given: str = "", variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | (variables or {})
    return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)


def printed(script: str, *arguments: str, given: str = "") -> str:
    ran = run(ROOT / "k8s" / script, *arguments, given=given)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def secrets_of(text: str) -> Secrets:
    return {s["metadata"]["name"]: s["stringData"] for s in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
async def secrets(postgres: Postgres) -> Secrets:
    """Of a server on which an administrator, who is no superuser, has run the SQL."""
    text = printed("secrets", "external", f"127.0.0.1:{postgres.port}")
    superuser = await asyncpg.connect(postgres.dsn(), ssl=False)
    await superuser.execute(f"CREATE ROLE {ADMIN} LOGIN CREATEDB CREATEROLE PASSWORD 'of-his-own'")
    await superuser.execute(f"GRANT CONNECT ON DATABASE postgres TO {ADMIN}")
    await superuser.close()
    psql = embedded._site_packages() / embedded.BIN / "psql"
    dsn = postgres.dsn(role=ADMIN, password="of-his-own")
    ran = run(psql, "--quiet", dsn, given=printed("databases", given=text))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    return secrets_of(text)


async def test_the_roles_may_do_what_they_need_and_nothing_else(postgres: Postgres, secrets: Secrets) -> None:
    superuser = await asyncpg.connect(postgres.dsn(), ssl=False)
    found = await superuser.fetch(
        "SELECT rolname, rolconnlimit,"
        " rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls AS more"
        " FROM pg_roles WHERE rolname LIKE 'ftgo\\_%'"
    )
    limits = {role["rolname"]: role["rolconnlimit"] for role in found}
    assert limits == {
        name: limit
        for service in SERVICES
        for name, limit in ((f"ftgo_{service}", 90), (f"ftgo_{service}_owner", roles.OWNER_CONNECTIONS))
    }
    assert not [role["rolname"] for role in found if role["more"]]
    assert not await superuser.fetchval(
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ftgo\\_%\\_owner' AND pg_has_role($1, oid, 'USAGE')", ADMIN
    )
    await superuser.close()

    service = await asyncpg.connect(secrets["order-db-service"]["uri"], ssl=False)
    for ddl in ("CREATE TABLE t (n int)", "CREATE TEMPORARY TABLE t (n int)", "CREATE SCHEMA s"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(ddl)
    await service.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
        await asyncpg.connect(secrets["order-db-service"]["uri"], database="ftgo_kitchen", ssl=False)


@pytest.mark.parametrize("service", SERVICES)
async def test_the_migrations_run_as_in_their_job(secrets: Secrets, service: str) -> None:
    variables = {
        f"FTGO_{service.upper()}_DATABASE_URL": secrets[f"{service}-db-service"]["uri"],
        f"FTGO_{service.upper()}_MIGRATION_DATABASE_URL": secrets[f"{service}-db-owner"]["uri"],
        "FTGO_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    ran = run(sys.executable, "-P", "-m", f"ftgo_{service}.entrypoints.migrate", variables=variables)
    assert ran.returncode == 0, ran.stderr
    connection = await asyncpg.connect(secrets[f"{service}-db-service"]["uri"], ssl=False)
    assert await connection.fetchval("SELECT has_table_privilege('outbox', 'INSERT, DELETE')")
    assert not await connection.fetchval("SELECT has_table_privilege('outbox', 'TRUNCATE')")
    await connection.close()


async def test_the_options_reach_the_driver(postgres: Postgres, secrets: Secrets) -> None:
    """The server here has no TLS."""
    demanding = secrets_of(printed("secrets", "external", f"127.0.0.1:{postgres.port}", "ssl=require"))
    assert demanding["order-db-service"]["uri"].endswith("/ftgo_order?ssl=require")
    known = secrets["order-db-service"]["uri"]
    plain, tls = (make_engine(f"{known}{options}", "test", 1) for options in ("", "?ssl=require"))
    async with plain.connect():
        pass
    with pytest.raises(ConnectionError, match="SSL"):
        await tls.connect()
    await plain.dispose()
    await tls.dispose()


@pytest.mark.parametrize(
    "wrong",
    [["external"], ["external", "db.example.org"], ["external", "db:5432", "a'b"], ["elsewhere"], ["local", "x"], []],
)
def test_wrong_usage_is_refused(wrong: list[str]) -> None:
    ran = run(ROOT / "k8s/secrets", *wrong)
    assert (ran.returncode, ran.stdout) == (2, "")


def test_sql_is_made_of_all_secrets_or_not_at_all() -> None:
    text = printed("secrets", "external", "db.example.org:5432").replace(
        "username: ftgo_kitchen\n", "username: other\n"
    )
    ran = run(ROOT / "k8s/databases", given=text)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("no password of ftgo_kitchen:")


def test_all_pools_together_fit_into_the_limits(external: list[Manifest]) -> None:
    limits = dict(re.findall(r"(\w+)_CONNECTIONS=(\d+)", (ROOT / "k8s/databases").read_text()))
    assert int(limits["OWNER"]) == roles.OWNER_CONNECTIONS
    reads = ServiceSettings.model_fields["pool_size"].default
    of_an_api, of_a_worker, of_a_relay = WRITES + 2 + reads + 1, MESSAGES + 3 + 1, RELAY + 1 + HINTS
    counts = {m["metadata"]["name"]: m["spec"].get("replicas") for m in external if m["kind"] == "Deployment"}
    most = {m["metadata"]["name"]: m["spec"]["maxReplicas"] for m in external if m["kind"] == "HorizontalPodAutoscaler"}
    for service in SERVICES:
        api, worker, relay = most[f"{service}-api"], counts[f"{service}-worker"], counts[f"{service}-relay"]
        assert counts[f"{service}-api"] is None  # every rollout would set it, against the autoscaler
        # Each has one pod more during a rollout.
        wanted = (api + 1) * of_an_api + (worker + 1) * of_a_worker + (relay + 1) * of_a_relay
        assert 0.8 * int(limits["SERVICE"]) <= wanted <= int(limits["SERVICE"])
    together = 4 * (int(limits["SERVICE"]) + int(limits["OWNER"]))
    assert f"{together} connections" in (ROOT / "k8s/README.md").read_text()


def test_topics_are_created_as_in_local_on_as_many_brokers_as_is_said(
    local: list[Manifest], external: list[Manifest]
) -> None:
    (here,), (there,) = (
        [
            c
            for m in overlay
            if m["kind"] == "Job"
            for c in m["spec"]["template"]["spec"]["containers"]
            if c["name"] == "topics"
        ]
        for overlay in (external, local)
    )
    assert here["command"] == there["command"]
    assert here["securityContext"] == there["securityContext"]
    names = {e["name"]: e["valueFrom"]["configMapKeyRef"]["key"] for e in here["env"]}
    assert names == {"FTGO_KAFKA_BOOTSTRAP": "bootstrap", "FTGO_KAFKA_REPLICATION": "replication"}
    (kafka,) = (m["data"] for m in external if m["kind"] == "ConfigMap")
    assert kafka.keys() == set(names.values())


def test_the_services_reach_kafka_and_postgresql_anywhere_and_nothing_else(external: list[Manifest]) -> None:
    ports = set()
    for policy in (m for m in external if m["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            ports |= {(p["port"], "anywhere" if "to" not in rule else "dns") for p in rule["ports"]}
    assert ports == {(9092, "anywhere"), (5432, "anywhere"), (53, "dns")}
    assert not [m["kind"] for m in external if "." in m["apiVersion"].split("/")[0] and "k8s.io" not in m["apiVersion"]]
