#!/usr/bin/env bash
# bench.sh [ARGUMENT...]: starts a Kafka for itself alone on 127.0.0.1, fills it once, and measures the worker beside a raw
# librdkafka loop and Kafka's own ConsumerPerformance. About 20 minutes, with --quick 3; nothing else should run meanwhile.
#   --rounds N       how often each case is run, default 5     --case TEXT    only cases with this in their name
#   --quick          a tenth of the records, 2 rounds          --update-docs  write the result into docs/benchmarks.md
# Results: target/bench/. Settings from the environment:
#   BENCH_PORT   port of the broker, default 19192; its controller gets the next one
#   BENCH_STATE  where broker and topics (5 GB) are kept between runs, default $KCG_CACHE/bench; may be deleted
#   PROFILE      cargo's profile, default release; only that one says anything about speed
#   KUBECONFIG   a cluster with the CRD, to measure the idle operator too; nothing is changed there
. "$(dirname "$0")/lib.sh"
KCG_STATE=${BENCH_STATE:-$KCG_CACHE/bench}
# Kafka's jars, and daemons that are told by the state folder among their arguments.
. tests/cluster/lib.sh

port=${BENCH_PORT:-19192}
config=$KCG_STATE/kafka/server.properties
bench_pid=none

clean_up() {
    trap - EXIT
    if jobs -rp | grep -qx "$bench_pid"; then
        kill "$bench_pid" 2>/dev/null || true
        wait "$bench_pid" 2>/dev/null || true
    fi
    # An orderly stop, or the next start reads all segments again.
    stop_daemon kafka TERM 60
}

# Maven writes next to the pom.xml it reads, so it reads a copy.
fetch_jars() {
    command -v mvn >/dev/null || die "Maven is needed to fetch Kafka: apt-get install maven"
    say "fetching Kafka $KAFKA_VERSION from Maven Central (about a minute, once)"
    local partial
    mkdir -p "$KCG_CACHE"
    partial=$(mktemp -d "$KAFKA_JARS.partial.XXXXXX")
    mkdir "$partial/work"
    cp "$CLUSTER_DIR/kafka/pom.xml" "$partial/work/"
    mvn -B -q -f "$partial/work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$partial"
    rm -rf "$partial/work"
    mv -T "$partial" "$KAFKA_JARS" 2>/dev/null || rm -rf "$partial"
}

write_config() {
    cat >"$config" <<END
process.roles=broker,controller
node.id=1
log.dirs=$KCG_STATE/kafka/data
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# The output topic is made anew for every run.
log.segment.delete.delay.ms=1000
END
}

is_ready() { timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"; }

start_kafka() {
    mkdir -p "$KCG_STATE/kafka" "$KCG_STATE/pids" "$KCG_STATE/logs"
    # Left behind by a run that was killed.
    stop_daemon kafka TERM 60
    ! is_ready 2>/dev/null || die "something listens on 127.0.0.1:$port already; choose another port with BENCH_PORT"
    write_config
    if [[ ! -f $KCG_STATE/kafka/data/meta.properties ]]; then
        java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$KAFKA_JARS/*" \
            kafka.tools.StorageTool format --standalone -t kcgBenchBenchBenchBenc -c "$config" \
            >"$KCG_STATE/logs/kafka.log" 2>&1 || not_ready kafka "its storage cannot be formatted"
    fi
    # A session of its own, so that Ctrl-C reaches the measuring program first. File descriptor 9 is the lock.
    setsid java -Xms1g -Xmx1g -XX:+UseG1GC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$KAFKA_JARS/*" kafka.Kafka "$config" </dev/null >"$KCG_STATE/logs/kafka.log" 2>&1 9>&- &
    local pid=$! attempt
    echo "$pid" >"$KCG_STATE/pids/kafka"
    # Until it has become java it is a copy of this script, which would look as if the broker had ended.
    for ((attempt = 0; attempt < 100; attempt++)); do
        if is_ours "$pid" || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.05
    done
    wait_ready kafka is_ready
    say "kafka: ready on 127.0.0.1:$port"
}

[[ $KCG_STATE == /* && $KCG_STATE != *[[:space:]]* ]] || die "BENCH_STATE must be an absolute path without spaces"
command -v java >/dev/null || die "Java 17 or newer is needed for Kafka: apt-get install default-jre-headless"
[[ -d $KAFKA_JARS ]] || fetch_jars
profile=${PROFILE:-release}
folder=$profile
[[ $profile != dev ]] || folder=debug
say "building, with the profile $profile"
# The workspace as in deploy/image.sh, so that dependencies are built once for both.
cargo build --profile "$profile" --locked --workspace \
    --bin kafka-consumer-operator --bin kafka-consumer-worker --bin bench

mkdir -p "$KCG_STATE"
exec 9>"$KCG_STATE/lock"
flock -n 9 || die "another bench.sh uses $KCG_STATE"
trap clean_up EXIT
trap 'exit 130' INT TERM
start_kafka
# In the background, so that a signal is served at once.
"$CARGO_TARGET_DIR/$folder/bench" run --bootstrap-servers "127.0.0.1:$port" --kafka-jars "$KAFKA_JARS" \
    --broker-pid "$(<"$KCG_STATE/pids/kafka")" --command-line "scripts/bench.sh${*:+ $*}" "$@" 9>&- &
bench_pid=$!
wait "$bench_pid"
