#!/usr/bin/env bash
# exec.sh COMMAND...: runs COMMAND in the test cluster's network, with the cluster's addresses and credentials
# in its environment. With KCG_EXTERNAL=1 it only runs COMMAND.
. "$(dirname "$0")/lib.sh"

(($#)) || die "usage: exec.sh COMMAND [ARGUMENT...]"
if is_external; then
    require_external_settings
    exec "$@"
fi
require_own_cluster
[[ -f $KCG_STATE/env && -e $NETNS_FILE ]] || die "no test cluster is running: run $CLUSTER_DIR/up.sh"
# shellcheck disable=SC1091 # written by up.sh
. "$KCG_STATE/env"
# The cluster's network has no way to the internet, so cargo must not try.
export CARGO_NET_OFFLINE=true
exec nsenter --net="$NETNS_FILE" -- "$@"
