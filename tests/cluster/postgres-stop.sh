#!/usr/bin/env bash
# Stops the cluster's PostgreSQL server and keeps its data. --kill sends SIGKILL instead.
. "$(dirname "$0")/lib.sh"

# Kills all of its processes at once: orphaned ones would still hold the shared memory that the next start
# needs. Also removes the lock files: to the next server, a dead server counts as alive until its parent has
# reaped it.
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
