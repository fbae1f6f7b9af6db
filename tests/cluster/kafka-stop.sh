#!/usr/bin/env bash
# Stops all Kafka brokers of the cluster and keeps their data. --kill sends SIGKILL instead of SIGTERM. broker.sh
# stops a single one.
. "$(dirname "$0")/lib.sh"
. "$CLUSTER_DIR/brokers.sh"

require_own_cluster
case ${1:-} in
    '') stop_brokers ;;
    --kill) kill_brokers ;;
    *) die "usage: kafka-stop.sh [--kill]" ;;
esac
say "kafka: stopped"
