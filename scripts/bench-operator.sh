#!/usr/bin/env bash
# bench-operator.sh [ARGUMENT...]: starts the cluster of tests/cluster and measures the operator with many
# groups: CPU, memory, threads and connections, and the time until it acts on a change. The operator runs as a
# process of this machine. Takes about 15 minutes, 4 with --quick; run nothing else at the same time.
#   --groups N,...   numbers of groups, default 100,1000
#   --quick          100 groups, short rests, 10 trials
#   --trials N       single changes of each kind, default 30
#   --running        groups that run, with one worker each whose pod matches no node; by default they are stopped
#   --workers N      instead: one group with N busy workers, whose pods run on a node without a kubelet
#   --update-docs    write the result into docs/benchmarks.md
# Results: target/bench-operator/. Settings from the environment:
#   KCG_OPERATOR_BINARY  measure this operator instead of building the one of the working tree
#   PROFILE              cargo's profile, default release; only a release build shows the real numbers
#   KCG_STATE, KCG_NETNS folder and network namespace of the cluster
#   KCG_EXTERNAL=1 KUBECONFIG=... KAFKA_BOOTSTRAP_SERVERS=...  use that cluster, in which no operator is installed
. "$(dirname "$0")/lib.sh"

# Separate network and folders, so that the measurement does not touch other clusters of this machine.
export KCG_STATE=${KCG_STATE:-/tmp/kcg-bench-operator} KCG_NETNS=${KCG_NETNS:-kcg-bench-operator}
profile=${PROFILE:-release}
program_pid=none
cluster=0

clean_up() {
    local status=$?
    trap - EXIT
    # It removes its groups and topics first.
    if jobs -rp | grep -qx "$program_pid"; then
        kill "$program_pid" 2>/dev/null || true
        wait "$program_pid" || true
    fi
    if ((cluster)); then tests/cluster/down.sh || true; fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

need_libraries
tests/cluster/setup.sh
folder=$profile
[[ $profile != dev ]] || folder=debug
binaries=(--bin bench-operator)
arguments=()
if [[ -n ${KCG_OPERATOR_BINARY:-} ]]; then
    arguments+=(--operator "$(realpath "$KCG_OPERATOR_BINARY")")
else
    binaries+=(--bin kafka-consumer-operator)
fi
say "building with the profile $profile"
cargo build --profile "$profile" --locked --workspace "${binaries[@]}"

cluster=1
tests/cluster/up.sh
if [[ -f $KCG_STATE/pids/kafka ]]; then arguments+=(--broker-pid "$(<"$KCG_STATE/pids/kafka")"); fi
if [[ -f $KCG_STATE/pids/kube-apiserver ]]; then
    arguments+=(--api-server-pid "$(<"$KCG_STATE/pids/kube-apiserver")")
fi
# In the background, so that the script handles a signal at once.
tests/cluster/exec.sh "$CARGO_TARGET_DIR/$folder/bench-operator" "${arguments[@]}" \
    --command-line "scripts/bench-operator.sh${*:+ $*}" "$@" &
program_pid=$!
wait "$program_pid"
