#!/usr/bin/env bash
# cluster.sh: starts a development cluster: Kubernetes, Kafka and PostgreSQL of tests/cluster, both images
# built from the working tree, and the operator installed by Helm. Run it again to update the operator. PROFILE is
# cargo's profile; default: the one that is built already, else dev.
. "$(dirname "$0")/lib.sh"

PROFILE=${PROFILE:-$(built_profile dev)}
export PROFILE
state=${KCG_STATE:-/tmp/kcg-cluster}

tests/cluster/setup.sh
find_helm
deploy/image.sh
tests/cluster/up.sh
tests/cluster/load-image.sh "$CARGO_TARGET_DIR"/image/*.tar
tests/cluster/exec.sh "$HELM" upgrade --install kafka-consumer-operator "$CHART" \
    --namespace kafka-consumer-operator --create-namespace --wait --timeout 3m
# The tag is the same for every build, so only a restart makes the pods use the new image.
tests/cluster/exec.sh kubectl -n kafka-consumer-operator rollout restart deployment/kafka-consumer-operator
tests/cluster/exec.sh kubectl -n kafka-consumer-operator rollout status deployment/kafka-consumer-operator --timeout=3m

cat <<END

The cluster is up and the operator is ready. The cluster has its own network, so run commands in it like this:

  tests/cluster/exec.sh kubectl get kcg -A
  tests/cluster/exec.sh bash                       # kubectl, helm, KUBECONFIG and KAFKA_BOOTSTRAP_SERVERS are set
  tests/cluster/kafka-tool.sh org.apache.kafka.tools.TopicCommand --bootstrap-server 198.51.100.1:9092 --list

kubeconfig: $state/kubeconfig     all addresses and passwords: $state/env     logs: $state/logs
'make cluster-down' removes the cluster. After a code change, run 'make cluster' again.
END
