#!/usr/bin/env bash
# Starts the cluster's Kafka brokers: KCG_BROKERS of them, default 1, or as many as the cluster already has. The
# first start formats their storage; later ones keep the data.
. "$(dirname "$0")/lib.sh"

# PROXIED advertises another port, where a test that cuts connections runs its proxy.
broker_listeners="PLAINTEXT:9092 SASL_SSL:9093 MTLS:9094 CONTROLLER:9095 PROXIED:9096:9097 INTERNAL:9098"
broker_config="
# TLS: one server certificate, one CA that signs servers and clients.
ssl.keystore.type=PEM
ssl.keystore.location=$KCG_STATE/certs/kafka.pem
ssl.truststore.type=PEM
ssl.truststore.location=$KCG_STATE/certs/kafka-ca.crt
listener.name.mtls.ssl.client.auth=required

# SASL: alice exists for both SCRAM mechanisms (added when the storage is formatted), bob only for PLAIN.
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_bob=\"bob-secret\";

# Groups: tests that kill members must not wait for production timeouts. With the protocol Consumer the broker
# decides them, not the client; a test may set others for its group (consumer.session.timeout.ms).
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000"
broker_format=(--add-scram 'SCRAM-SHA-256=[name=alice,password=alice-secret]'
    --add-scram 'SCRAM-SHA-512=[name=alice,password=alice-secret]')
. "$CLUSTER_DIR/brokers.sh"

make_certificates() {
    local certs=$KCG_STATE/certs
    mkdir -p "$certs"
    new_ca "$certs/kafka-ca" kafka-ca
    new_signed "$certs/kafka-ca" "$certs/kafka" kafka \
        "subjectAltName=IP:$HOST"$'\nextendedKeyUsage=serverAuth'
    cat "$certs/kafka.key" "$certs/kafka.crt" >"$certs/kafka.pem"
    new_signed "$certs/kafka-ca" "$certs/kafka-client" client 'extendedKeyUsage=clientAuth'
}

require_own_cluster
[[ -f $NETNS_FILE ]] || die "no cluster: run up.sh first"
stored=$(stored_brokers)
# The certificates are created first and the storage last, so if the storage exists, everything does.
[[ -f $KCG_STATE/kafka/data/meta.properties ]] || make_certificates
start_brokers "${KCG_BROKERS:-${stored:-1}}"
