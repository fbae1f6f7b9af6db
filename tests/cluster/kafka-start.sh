#!/usr/bin/env bash
# Starts the cluster's Kafka broker. The first start formats its storage; later ones keep the data.
. "$(dirname "$0")/lib.sh"

CONFIG=$KCG_STATE/kafka/server.properties

java_tool() {
    in_netns java -Xmx256m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$KAFKA_JARS/*" "$@"
}

make_certificates() {
    local certs=$KCG_STATE/certs
    mkdir -p "$certs"
    new_ca "$certs/kafka-ca" kafka-ca
    new_signed "$certs/kafka-ca" "$certs/kafka" kafka \
        "subjectAltName=IP:$HOST"$'\nextendedKeyUsage=serverAuth'
    cat "$certs/kafka.key" "$certs/kafka.crt" >"$certs/kafka.pem"
    new_signed "$certs/kafka-ca" "$certs/kafka-client" client 'extendedKeyUsage=clientAuth'
}

format_storage() {
    mkdir -p "$KCG_STATE/kafka" "$KCG_STATE/logs"
    sed -e "s|@HOST@|$HOST|g" -e "s|@STATE@|$KCG_STATE|g" \
        "$CLUSTER_DIR/kafka/server.properties.template" >"$CONFIG"
    java_tool kafka.tools.StorageTool format --standalone -t kcgKcgKcgKcgKcgKcgKcgA -c "$CONFIG" \
        --add-scram 'SCRAM-SHA-256=[name=alice,password=alice-secret]' \
        --add-scram 'SCRAM-SHA-512=[name=alice,password=alice-secret]' \
        >>"$KCG_STATE/logs/kafka.log" 2>&1 || not_ready kafka "formatting its storage failed"
}

is_ready() {
    in_netns kcat -L -b "$HOST:9092" -m 2 && tcp_open "$HOST" 9093 && tcp_open "$HOST" 9094
}

require_own_cluster
if is_running kafka; then
    say "kafka: already running"
    exit 0
fi
[[ -f $NETNS_FILE ]] || die "no cluster: run up.sh first"
# The certificates are created first and the storage last, so if the storage exists, everything does.
if [[ ! -f $KCG_STATE/kafka/data/meta.properties ]]; then
    make_certificates
    format_storage
fi
start_daemon kafka java -Xms256m -Xmx1g \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=info -Dorg.slf4j.simpleLogger.showDateTime=true \
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS" -Dorg.slf4j.simpleLogger.showThreadName=false \
    -cp "$KAFKA_JARS/*" kafka.Kafka "$CONFIG"
wait_ready kafka is_ready
say "kafka: ready"
