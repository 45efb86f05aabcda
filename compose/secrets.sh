#!/bin/bash
# Makes the passwords at the first start: of PostgreSQL's superuser and of the roles of every service.
#
#   /secrets/postgres/     all of them, for the script that makes the roles
#   /secrets/order/        pgpass: the passwords of ftgo_order and ftgo_order_relay, readable by the service only; and so on
#   /secrets/order-owner/  pgpass: that of ftgo_order_owner, for the migrations
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
  name=ftgo_$service
  owned=$(password) made=$(password) relayed=$(password)
  give "/secrets/postgres/${name}_owner.password" "$POSTGRES_USER_ID" <<<"$owned"
  give "/secrets/postgres/$name.password" "$POSTGRES_USER_ID" <<<"$made"
  give "/secrets/postgres/${name}_relay.password" "$POSTGRES_USER_ID" <<<"$relayed"
  give "/secrets/$service-owner/pgpass" "$SERVICE_USER_ID" <<<"*:5432:$name:${name}_owner:$owned"
  printf '%s\n' "*:5432:$name:$name:$made" "*:5432:$name:${name}_relay:$relayed" \
    | give "/secrets/$service/pgpass" "$SERVICE_USER_ID"
done
touch "$COMPLETE"
