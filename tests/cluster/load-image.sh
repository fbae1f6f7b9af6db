#!/usr/bin/env bash
# load-image.sh FILE...: imports images (archives of "docker save" or "buildah push docker-archive:") into the
# test cluster. Pods use them with imagePullPolicy IfNotPresent.
. "$(dirname "$0")/lib.sh"

(($#)) || die "usage: load-image.sh FILE..."
require_own_cluster
[[ -S $CONTAINERD_SOCKET ]] || die "no test cluster is running: run $CLUSTER_DIR/up.sh"
for file in "$@"; do
    in_netns ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io images import "$file"
done
