#!/bin/bash
# Run by the image of PostgreSQL when its data directory is new: a database and a role for every service, and no role
# can reach a database but its own. The same in compose/ and k8s/overlays/local/ (kustomize reads no file from outside).
set -euo pipefail

sql() { psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres "$@"; }

# REPLICATION lets a relay tail the transaction log; it opens no other database's tables.
sql --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
for service in consumer order kitchen accounting; do
  sql --set name="ftgo_$service" --set service="$service" <<'SQL'
\setenv SERVICE :service
\set password `cat "/run/ftgo/$SERVICE.password"`
CREATE ROLE :"name" LOGIN REPLICATION PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
SQL
done
