#!/bin/sh
# Starts PostgreSQL, and makes its database first when the data volume is empty.
#
# POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_USER (postgres) and POSTGRES_DB (the user's name) mean
# what they mean to the official image, and like there count only on the first start. PGDATA is a folder in
# the data volume, not the volume itself, as its mode must be ours to set. Only PGDATA and /tmp are written.
set -eu

user="${POSTGRES_USER:-postgres}"
database="${POSTGRES_DB:-$user}"

initialise() {
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        POSTGRES_PASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
    fi
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "neither POSTGRES_PASSWORD nor POSTGRES_PASSWORD_FILE is set" >&2
        exit 1
    fi
    # A start that was killed half way leaves this behind, and nothing under the final name.
    new="$PGDATA.new"
    rm -rf "$new"
    umask 077
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata="$new" --username="$user" --pwfile=/tmp/password --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256 --no-instructions --no-sync
    rm -f /tmp/password
    echo "host all all all scram-sha-256" >> "$new/pg_hba.conf"
    if [ "$database" != postgres ]; then
        quoted="$(printf '%s' "$database" | sed 's/"/""/g')"
        printf 'CREATE DATABASE "%s"\n' "$quoted" | postgres --single -D "$new" postgres > /dev/null
    fi
    mv "$new" "$PGDATA"
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initialise
fi
unset POSTGRES_PASSWORD
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c shared_buffers=32MB \
    -c jit=off "$@"
