#!/bin/sh
# Starts Redis with the password in REDIS_PASSWORD, when set. The configuration goes through standard input,
# so that the password is in no list of processes. Data is kept when /data can be written.
set -eu

configuration="bind * -::*
port 6379
dir /tmp
save \"\"
appendonly no"
if [ -w /data ]; then
    configuration="$configuration
dir /data
appendonly yes"
fi
if [ -n "${REDIS_PASSWORD:-}" ]; then
    quoted="$(printf '%s' "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')"
    configuration="$configuration
requirepass \"$quoted\""
else
    configuration="$configuration
protected-mode no"
fi
unset REDIS_PASSWORD
exec redis-server - "$@" <<END
$configuration
END
