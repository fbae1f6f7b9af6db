#!/usr/bin/env bash
# three-brokers.sh start|stop: a separate Kafka cluster of three brokers below KCG_STATE, on 127.0.0.1 of the
# network that it is called in, for tests that stop brokers. broker.sh stops and starts single ones. The first
# line of "start" is the list of bootstrap servers; "stop" removes the data.
. "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2034 # for brokers.sh
{
    ENTER=() HOST=127.0.0.1
    : "${KCG_PORT:=29092}"
    broker_listeners="PLAINTEXT:$KCG_PORT CONTROLLER:$((KCG_PORT + 1)) INTERNAL:$((KCG_PORT + 5))"
    # Tests that kill members must not wait for production timeouts.
    broker_config="group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000"
    broker_log_level=warn
}
. "$CLUSTER_DIR/brokers.sh"

case ${1:-} in
    start)
        start_brokers 3 >&2
        say "$KAFKA_BOOTSTRAP_SERVERS"
        ;;
    stop)
        kill_brokers
        rm -rf "${KCG_STATE:?}"
        ;;
    *) die "usage: three-brokers.sh start|stop" ;;
esac
