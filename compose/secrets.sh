#!/bin/bash
# Makes the passwords at the first start: of PostgreSQL's superuser and of the role of every service.
#
#   /secrets/postgres/  all of them, for the script that makes the roles
#   /secrets/order/     pgpass: the password of ftgo_order, readable by the service only; and so on
set -euo pipefail
umask 077

# What the official image runs as, and what our Dockerfile does.
readonly POSTGRES_USER_ID=999 SERVICE_USER_ID=10001

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

give() { # give FILE USER: the content comes from standard input
  rm -f "$1"
  cat >"$1"
  chmod 0400 "$1"
  chown "$2:$2" "$1"
}

# Written last: a run that was broken off begins anew, before anybody has used what it made.
readonly COMPLETE=/secrets/postgres/complete
[[ ! -e $COMPLETE ]] || exit 0

chmod 0755 /secrets/*
password | give /secrets/postgres/postgres.password "$POSTGRES_USER_ID"
for service in consumer order kitchen accounting; do
  made=$(password)
  give "/secrets/postgres/$service.password" "$POSTGRES_USER_ID" <<<"$made"
  give "/secrets/$service/pgpass" "$SERVICE_USER_ID" <<<"postgres:5432:ftgo_$service:ftgo_$service:$made"
done
touch "$COMPLETE"
