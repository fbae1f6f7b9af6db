#!/usr/bin/env bash
# Starts the cluster's PostgreSQL server. The first start creates the database; later ones keep the data.
. "$(dirname "$0")/lib.sh"
. "$CLUSTER_DIR/postgres.sh"

require_own_cluster
if is_running postgres; then
    say "postgres: already running"
    exit 0
fi
[[ -f $NETNS_FILE ]] || die "no cluster: run up.sh first"
start_postgres 5432
