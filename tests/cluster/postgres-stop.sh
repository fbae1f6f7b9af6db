#!/usr/bin/env bash
# Stops the cluster's PostgreSQL server and keeps its data. With --kill it is killed instead.
. "$(dirname "$0")/lib.sh"

# All of its processes at once: orphaned ones would still hold the shared memory that the next start wants.
# The lock files go too: a dead server that its parent has not yet collected counts as alive to the next.
kill_all() {
    local pid
    local -a children
    pid=$(daemon_pid postgres) || return 0
    mapfile -t children < <(cat "/proc/$pid/task"/*/children 2>/dev/null | tr -s ' ' '\n' | grep .)
    kill -s KILL "$pid" "${children[@]}" 2>/dev/null || true
    stop_daemon postgres KILL 10
    rm -f "$KCG_STATE/postgres/data/postmaster.pid" "$KCG_STATE"/postgres/.s.PGSQL.*
}

require_own_cluster
case ${1:-} in
    '') stop_daemon postgres INT 30 ;; # "fast": open transactions are rolled back
    --kill) kill_all ;;
    *) die "usage: postgres-stop.sh [--kill]" ;;
esac
say "postgres: stopped"
