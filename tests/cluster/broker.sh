#!/usr/bin/env bash
# broker.sh COMMAND NUMBER...: stops, freezes or isolates single brokers of the Kafka cluster in KCG_STATE.
#   stop     SIGTERM: the broker hands its leaderships over; returns when it has ended
#   kill     SIGKILL
#   freeze   SIGSTOP
#   thaw     SIGCONT
#   start    starts stopped brokers with their data; returns when they are members of the cluster again. Without
#            a majority of running brokers no broker becomes a member: then start several with one call
#   isolate  drops all traffic with the other brokers, but not with clients (root, in a network namespace)
#   join     ends that
# broker.sh status: prints each broker with its process id and state.
. "$(dirname "$0")/lib.sh"
. "$CLUSTER_DIR/brokers.sh"

usage() { die "usage: broker.sh stop|kill|freeze|thaw|start|isolate|join NUMBER..., or broker.sh status"; }

state_of() {
    local pid state=stopped
    if pid=$(daemon_pid "$(broker_name "$1")"); then
        state="running, process $pid"
        ! grep -q '^State:\s*T' "/proc/$pid/status" || state="frozen, process $pid"
    fi
    ! is_isolated "$1" || state+=", isolated"
    echo "$state"
}

is_external && die "broker.sh does not touch the external cluster of KCG_EXTERNAL=1"
[[ -f $BROKER_SETTINGS ]] || die "no brokers in $KCG_STATE: set KCG_STATE to the folder of a running cluster"
# shellcheck source=/dev/null
. "$BROKER_SETTINGS"
# The settings contain the network namespace that the brokers were started in.
[[ $(broker_network) == "${broker_netns:-}" ]] ||
    die "the brokers in $KCG_STATE have another network: run this with nsenter --net=/proc/PROCESS/ns/net, where PROCESS is a broker"

(($#)) || usage
command=$1
shift
if [[ $command == status ]]; then
    for ((number = 1; number <= KCG_BROKERS; number++)); do say "broker $number: $(state_of "$number")"; done
    exit
fi
(($#)) || usage
for number in "$@"; do
    [[ $number =~ ^[1-9]$ && $number -le $KCG_BROKERS ]] || die "no broker $number: this cluster has $KCG_BROKERS"
done
case $command in
    stop) for number in "$@"; do stop_broker "$number" TERM; done ;;
    kill) for number in "$@"; do stop_broker "$number" KILL; done ;;
    freeze) for number in "$@"; do signal_broker "$number" STOP; done ;;
    thaw) for number in "$@"; do signal_broker "$number" CONT; done ;;
    start)
        for number in "$@"; do
            ! is_running "$(broker_name "$number")" || die "broker $number is already running"
            ! is_isolated "$number" || die "broker $number is isolated: run broker.sh join $number first"
        done
        launch_and_wait "$@"
        ;;
    isolate) for number in "$@"; do isolate_broker "$number"; done ;;
    join) for number in "$@"; do join_broker "$number"; done ;;
    *) usage ;;
esac
