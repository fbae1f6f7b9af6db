#!/usr/bin/env bash
# kafka-tool.sh CLASS ARGUMENT...: runs one of Kafka's own tools inside the test cluster, for example
#   kafka-tool.sh org.apache.kafka.tools.TopicCommand --bootstrap-server 198.51.100.1:9092 --list
. "$(dirname "$0")/lib.sh"

(($#)) || die "usage: kafka-tool.sh CLASS [ARGUMENT...]"
[[ -d $KAFKA_JARS ]] || die "Kafka's tools are not installed: run $CLUSTER_DIR/setup.sh"
exec "$CLUSTER_DIR/exec.sh" java -Xmx512m -XX:TieredStopAtLevel=1 \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$KAFKA_JARS/*" "$@"
