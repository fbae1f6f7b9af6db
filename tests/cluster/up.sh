#!/usr/bin/env bash
# Starts the test cluster: Kubernetes, Kafka and PostgreSQL in one network namespace. Skips what is already
# running, and cleans up after a crashed run.
. "$(dirname "$0")/lib.sh"
. "$CLUSTER_DIR/kubernetes.sh"
. "$CLUSTER_DIR/brokers.sh"

write_env() {
    local name
    # The addresses of all brokers.
    # shellcheck source=/dev/null
    . "$BROKER_SETTINGS"
    {
        for name in KCG_STATE KCG_NETNS; do
            printf 'export %s=%q\n' "$name" "${!name}"
        done
        cat <<END
export KCG_CLUSTER_DIR=$(printf %q "$CLUSTER_DIR")
export KCG_CONTAINERD_SOCKET=$CONTAINERD_SOCKET
export KCG_AUDIT_LOG=$KCG_STATE/logs/audit.log
export KUBECONFIG=$ADMIN_KUBECONFIG
export KAFKA_BOOTSTRAP_SERVERS=$(broker_addresses PLAINTEXT)
export KAFKA_PROXIED_SERVERS=$(broker_addresses PROXIED)
export KAFKA_PROXY_ADDRESS=$HOST:9097
export KAFKA_SASL_BOOTSTRAP_SERVERS=$(broker_addresses SASL_SSL)
export KAFKA_SASL_USERNAME=alice
export KAFKA_SASL_PASSWORD=alice-secret
export KAFKA_PLAIN_USERNAME=bob
export KAFKA_PLAIN_PASSWORD=bob-secret
export KAFKA_MTLS_BOOTSTRAP_SERVERS=$(broker_addresses MTLS)
export KAFKA_CA_FILE=$KCG_STATE/certs/kafka-ca.crt
export KAFKA_CLIENT_CERT_FILE=$KCG_STATE/certs/kafka-client.crt
export KAFKA_CLIENT_KEY_FILE=$KCG_STATE/certs/kafka-client.key
export KAFKA_LIBS=$(printf %q "$KAFKA_JARS")
export POSTGRES_URL=postgresql://kcg:kcg@$HOST:5432/kcg
export PATH=$(printf '%q:%q' "$KUBERNETES_BIN" "$HELM_BIN"):\$PATH
END
    } >"$KCG_STATE/env.new"
    mv "$KCG_STATE/env.new" "$KCG_STATE/env" # appears complete or not at all
}

make_state() {
    mkdir -p "$KCG_STATE"
    chmod 755 "$KCG_STATE" # PostgreSQL's user has to get through
    : >"$KCG_STATE/.kcg-cluster"
    mkdir -p "$KCG_STATE/logs" "$KCG_STATE/pids"
}

# Kafka and PostgreSQL start while Kubernetes does.
start_all() {
    local kafka postgres
    "$CLUSTER_DIR/kafka-start.sh" 9>&- &
    kafka=$!
    "$CLUSTER_DIR/postgres-start.sh" 9>&- &
    postgres=$!
    # shellcheck disable=SC2064 # these two, as they are now
    trap "kill $kafka $postgres 2>/dev/null || true" EXIT
    kubernetes_is_running || start_kubernetes
    wait "$kafka" || die "kafka did not start"
    wait "$postgres" || die "postgres did not start"
    trap - EXIT
}

if is_external; then
    require_external_settings
    say "using the cluster of KUBECONFIG=$KUBECONFIG and KAFKA_BOOTSTRAP_SERVERS=$KAFKA_BOOTSTRAP_SERVERS"
    exit 0
fi
"$CLUSTER_DIR/setup.sh"
require_own_cluster
export KCG_STATE KCG_NETNS KCG_CACHE KCG_TIMEOUT
take_lock
started=$SECONDS
if ! kubernetes_is_running || ! netns_is_ours || [[ ! -f $KCG_STATE/env ]]; then
    # shellcheck disable=SC2119 # nothing is kept
    tear_down
    make_state
    make_network
fi
start_all
write_env
say "the test cluster is up after $((SECONDS - started)) s: run commands in it with $CLUSTER_DIR/exec.sh, or see $KCG_STATE/env"
