#!/bin/bash
# Run by the image of PostgreSQL when its data directory is new: for every service a database, its owner, with which the
# migrations run, and the role of the running service; no role can reach a database but its own. FTGO_SERVICES names
# other services than all four; with FTGO_RELAY=log-tailing there is a role for the relay, which alone has REPLICATION.
# What the roles may do with tables is granted by the migrations.
# The same in compose/ and k8s/overlays/local/ (kustomize reads no file from outside).
set -euo pipefail

sql() { psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres "$@"; }
role() { # role NAME OPTIONS: its password is in the file of its name
  sql --set name="$1" <<SQL
\\set password \`cat "/run/ftgo/$1.password"\`
CREATE ROLE :"name" LOGIN $2 PASSWORD :'password';
SQL
}

sql --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
for service in ${FTGO_SERVICES:-consumer order kitchen accounting}; do
  name=ftgo_$service
  role "${name}_owner" "NOREPLICATION CONNECTION LIMIT 3"
  role "$name" "NOREPLICATION CONNECTION LIMIT 45"
  sql --set name="$name" --set owner="${name}_owner" <<'SQL'
CREATE DATABASE :"name" OWNER :"owner";
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"name";
SQL
  if [[ ${FTGO_RELAY:-polling} == log-tailing ]]; then
    role "${name}_relay" "REPLICATION CONNECTION LIMIT 10"
    sql --set name="$name" --set relay="${name}_relay" <<'SQL'
GRANT CONNECT ON DATABASE :"name" TO :"relay";
SQL
  fi
done
