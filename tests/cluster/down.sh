#!/usr/bin/env bash
# Stops the test cluster and removes all traces of it, also after a crash. KCG_KEEP=1 keeps the logs.
. "$(dirname "$0")/lib.sh"
. "$CLUSTER_DIR/kubernetes.sh"
. "$CLUSTER_DIR/brokers.sh"

if is_external; then
    say "KCG_EXTERNAL=1: not touching a cluster that these scripts did not start"
    exit 0
fi
require_own_cluster
take_lock
if [[ ${KCG_KEEP:-} == 1 ]]; then
    tear_down keep-logs
    say "the test cluster is down; its logs are in $KCG_STATE/logs"
else
    tear_down
    say "the test cluster is down"
fi
