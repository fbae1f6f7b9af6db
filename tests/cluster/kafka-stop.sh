#!/usr/bin/env bash
# Stops the cluster's Kafka broker and keeps its data. --kill sends SIGKILL instead of SIGTERM.
. "$(dirname "$0")/lib.sh"

require_own_cluster
case ${1:-} in
    '') stop_daemon kafka TERM 30 ;;
    --kill) stop_daemon kafka KILL 10 ;;
    *) die "usage: kafka-stop.sh [--kill]" ;;
esac
say "kafka: stopped"
