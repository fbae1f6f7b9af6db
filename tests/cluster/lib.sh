# shellcheck shell=bash
# shellcheck disable=SC2034 # most variables are for the scripts that source this
# Shared by the scripts of this folder; each one sources it. Settings come from the environment:
#   KCG_STATE     folder of the running cluster   KCG_NETNS     its network namespace
#   KCG_CACHE     folder of downloads and builds  KCG_EXTERNAL  1: use the caller's cluster, create none
#   KCG_KEEP      1: down.sh keeps the logs       KCG_TIMEOUT   seconds a component has to become ready
#   KCG_BROKERS   number of Kafka brokers

set -euo pipefail

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

: "${KCG_STATE:=/tmp/kcg-cluster}"
: "${KCG_NETNS:=kcg}"
: "${KCG_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/kafka-consumer-operator}"
: "${KCG_TIMEOUT:=120}"

# An address reserved for documentation (RFC 5737): it hides no address that a test may want to reach.
HOST=198.51.100.1
NETNS_FILE=/var/run/netns/$KCG_NETNS
CONTAINERD_SOCKET=$KCG_STATE/containerd/containerd.sock
ADMIN_KUBECONFIG=$KCG_STATE/kubeconfig
# Containers have a separate cgroup, named after the cluster: this distinguishes their processes from all
# others when a crashed run is cleaned up.
CGROUP=kafka-consumer-operator-$KCG_NETNS

KUBERNETES_VERSION=$(awk '$1 == "k8s.io/kubernetes" { sub(/^v/, "", $2); print $2; exit }' "$CLUSTER_DIR/kubernetes/go.mod")
KAFKA_VERSION=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$CLUSTER_DIR/kafka/pom.xml")
HELM_VERSION=3.22.0

# The names of cached builds contain a hash of their sources, so a change builds a new one and never mixes the
# two.
hash_of() { (cd "$CLUSTER_DIR" && cat "$@") | sha256sum | cut -c1-12; }
KUBERNETES_BIN=$KCG_CACHE/kubernetes-$KUBERNETES_VERSION-$(hash_of kubernetes/go.mod kubernetes/go.sum kubernetes/main.go)
KAFKA_JARS=$KCG_CACHE/kafka-$KAFKA_VERSION-$(hash_of kafka/pom.xml)
PAUSE_DIR=$KCG_CACHE/pause-$(hash_of pause/pause.c)
HELM_BIN=$KCG_CACHE/helm-$HELM_VERSION
PAUSE_IMAGE=localhost/pause:1

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# --- whose cluster ------------------------------------------------------------------------------------

is_external() { [[ ${KCG_EXTERNAL:-} == 1 ]]; }

require_external_settings() {
    [[ -n ${KUBECONFIG:-} && -n ${KAFKA_BOOTSTRAP_SERVERS:-} ]] ||
        die "KCG_EXTERNAL=1 needs KUBECONFIG and KAFKA_BOOTSTRAP_SERVERS"
}

# For scripts that need our own cluster.
require_own_cluster() {
    is_external && die "$(basename "$0") does not touch the external cluster of KCG_EXTERNAL=1"
    [[ $(id -u) == 0 ]] || die "the test cluster needs root (network namespace, containers)"
    [[ $KCG_STATE == /* && $KCG_STATE != *[[:space:]]* ]] || die "KCG_STATE must be an absolute path without spaces"
    # Socket addresses have at most 108 bytes; the longest one below the state folder takes 40.
    ((${#KCG_STATE} <= 64)) || die "KCG_STATE is too long for the sockets in it: $KCG_STATE"
    [[ $KCG_NETNS =~ ^[a-z0-9-]{1,32}$ ]] || die "KCG_NETNS must be 1-32 of a-z, 0-9 and -"
}

# --- processes ----------------------------------------------------------------------------------------

# How commands enter the cluster's network. A script that needs no other network empties it.
ENTER=(nsenter --net="$NETNS_FILE" --)

in_netns() { "${ENTER[@]}" "$@"; }

# Starts a daemon in the cluster's network. setsid and nsenter execute the command in their place, so $! is
# the daemon. File descriptor 9 is the lock of up.sh and down.sh, which a daemon must not hold.
start_daemon() {
    local name=$1 pid attempt
    shift
    mkdir -p "$KCG_STATE/pids" "$KCG_STATE/logs"
    setsid "${ENTER[@]}" "$@" </dev/null >>"$KCG_STATE/logs/$name.log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$KCG_STATE/pids/$name"
    # Before the new process executes setsid it is a copy of this script, which is_ours does not recognize.
    for ((attempt = 0; attempt < 100; attempt++)); do
        ! is_ours "$pid" && kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
}

# While a process executes another program (exec) it has no arguments for some milliseconds, longer if the new
# program comes from a cold disk. But it has an executable, which kernel threads and ended processes do not
# have.
command_line() {
    local line='' attempt
    for ((attempt = 0; attempt < 200; attempt++)); do
        line=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" || true)
        if [[ -n $line ]] || ! readlink "/proc/$1/exe" >/dev/null 2>&1; then break; fi
        sleep 0.01
    done
    printf '%s' "$line"
}

# Every daemon has a path of the state folder among its arguments. A reused process id does not, nor does an
# ended process that its parent has not yet reaped.
is_ours() { [[ "$(command_line "$1")" == *"$KCG_STATE/"* ]]; }

daemon_pid() {
    local pid
    [[ -f $KCG_STATE/pids/$1 ]] || return 1
    pid=$(<"$KCG_STATE/pids/$1")
    [[ -n $pid ]] && is_ours "$pid" && echo "$pid"
}

is_running() { daemon_pid "$1" >/dev/null; }

# wait_ready NAME COMMAND...: waits until COMMAND succeeds; fails early if the daemon has ended.
wait_ready() {
    local name=$1 deadline=$((SECONDS + KCG_TIMEOUT))
    shift
    until "$@" >/dev/null 2>&1; do
        is_running "$name" || not_ready "$name" "ended while starting"
        ((SECONDS < deadline)) || not_ready "$name" "not ready after $KCG_TIMEOUT s"
        sleep 0.2
    done
}

not_ready() {
    {
        printf -- '--- last lines of %s\n' "$KCG_STATE/logs/$1.log"
        tail -n 30 "$KCG_STATE/logs/$1.log" || true
    } >&2
    die "$1: $2"
}

wait_gone() {
    local pid=$1 deadline=$((SECONDS + $2))
    while is_ours "$pid"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# stop_daemon NAME SIGNAL SECONDS: sends SIGNAL, then SIGKILL after SECONDS.
stop_daemon() {
    local pid
    if pid=$(daemon_pid "$1"); then
        kill -s "$2" "$pid" 2>/dev/null || true
        if ! wait_gone "$pid" "$3"; then
            kill -s KILL "$pid" 2>/dev/null || true
            wait_gone "$pid" 10 || die "$1 (process $pid) does not end"
        fi
    fi
    rm -f "$KCG_STATE/pids/$1"
}

# --- probes -------------------------------------------------------------------------------------------

# shellcheck disable=SC2016 # the inner shell expands these
tcp_open() { in_netns timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2"; }

# http_ok ADDRESS PORT PATH
http_ok() {
    # shellcheck disable=SC2016 # the inner shell expands these
    in_netns timeout 2 bash -c \
        'exec 3<>"/dev/tcp/$0/$1" && printf "GET %s HTTP/1.0\r\n\r\n" "$2" >&3 && read -r line <&3 && [[ $line == *" 200 "* ]]' \
        "$1" "$2" "$3"
}

admin() { in_netns "$KUBERNETES_BIN/kubectl" --kubeconfig="$ADMIN_KUBECONFIG" "$@"; }

# --- one at a time ------------------------------------------------------------------------------------

# The lock file is never deleted: a process that waits for the lock waits for this very file.
take_lock() {
    exec 9>"/run/$CGROUP.lock"
    flock -w 300 9 || die "another up.sh or down.sh is running for $KCG_NETNS; try again when it has ended"
}

# --- certificates -------------------------------------------------------------------------------------

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# new_certificate FILE-STEM SUBJECT EXTENSIONS [SIGNER-ARGUMENT...]
new_certificate() {
    local stem=$1 subject=$2 extensions=$3
    shift 3
    new_key "$stem.key"
    openssl req -x509 -new -key "$stem.key" -out "$stem.crt" -subj "$subject" -days 365 "$@" \
        -config <(printf '%s\n' '[req]' 'distinguished_name=dn' 'x509_extensions=ext' '[dn]' '[ext]' \
            'subjectKeyIdentifier=hash' "$extensions")
}

new_ca() { new_certificate "$1" "/CN=$2" $'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign'; }

# new_signed CA-STEM STEM COMMON-NAME EXTENSIONS
new_signed() {
    new_certificate "$2" "/CN=$3" $'basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n'"$4" \
        -CA "$1.crt" -CAkey "$1.key"
}
