#!/usr/bin/env bash
# bench.sh [ARGUMENT...]: starts a Kafka for itself alone on 127.0.0.1, fills it once, and measures the worker beside a raw
# librdkafka loop and others. About 30 minutes, with --quick 8; nothing else should run meanwhile.
#   --rounds N       how often each case is run, default 5     --case TEXT    only cases with this in their name
#   --quick          a tenth of the records, 2 rounds          --update-docs  write the result into docs/benchmarks.md
#   --perf           draw a flame graph of the worker, and print the functions that take most of its CPU time (Debian's linux-perf)
#   --peers          also others that do the same: loops in Java and Python, Kafka Connect, MirrorMaker, Parallel Consumer
# Results: target/bench/. Settings from the environment:
#   BENCH_PORT   port of the broker, default 19192; its controller gets the next one, PostgreSQL the one after
#   BENCH_STATE  where broker and topics (5 GB) are kept between runs, default $KCG_CACHE/bench; may be deleted
#   PROFILE      cargo's profile, default release; only that one says anything about speed
#   KUBECONFIG   a cluster with the CRD, to measure the idle operator too; nothing is changed there
. "$(dirname "$0")/lib.sh"
KCG_STATE=${BENCH_STATE:-$KCG_CACHE/bench}
port=${BENCH_PORT:-19192}
# Deleted logs are gone at once: what a run has written must not be on its way to the disk during the next.
# Groups with the protocol Consumer may have the short session of a case.
broker_config="log.segment.delete.delay.ms=100
group.consumer.min.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000"
. scripts/broker.sh
. scripts/peers.sh
# In this machine's own network, and not where the broker is: PostgreSQL's user has to get through.
. tests/cluster/postgres.sh
# shellcheck disable=SC2034 # for its functions
ENTER=() HOST=127.0.0.1
database_port=$((port + 2))
database=/tmp/kcg-bench-$database_port

bench_pid=none

clean_up() {
    trap - EXIT
    if jobs -rp | grep -qx "$bench_pid"; then
        kill "$bench_pid" 2>/dev/null || true
        wait "$bench_pid" 2>/dev/null || true
    fi
    stop_broker
    stop_database
}

# New each time. Functions of the cluster, which see another state folder for as long as they run.
start_database() {
    stop_database
    mkdir -p "$database"
    chmod 755 "$database"
    (KCG_STATE=$database start_postgres "$database_port")
}

stop_database() {
    KCG_STATE=$database stop_daemon postgres INT 30
    rm -rf "$database"
}

[[ $KCG_STATE == /* && $KCG_STATE != *[[:space:]]* ]] || die "BENCH_STATE must be an absolute path without spaces"
build_programs kafka-consumer-operator kafka-consumer-worker bench bench-worker
needs=" $("$binaries/bench" needs "$@" | tr '\n' ' ')"
if [[ $needs == *" perf "* ]]; then
    command -v perf >/dev/null || die "--perf needs perf: apt-get install linux-perf"
    # It draws flame graphs.
    cargo_tool inferno 0.12.8 inferno-flamegraph "a minute or two"
    PATH=$cargo_tool:$PATH
    # The released worker has no names of functions.
    cargo build --profile "${PROFILE:-release}" --locked --workspace --bin kafka-consumer-worker --bin bench-worker \
        --config 'profile.release.package.kafka-consumer-worker.strip="none"' \
        --config 'profile.release.package.bench-worker.strip="none"'
fi

mkdir -p "$KCG_STATE"
exec 9>"$KCG_STATE/lock"
flock -n 9 || die "another bench.sh uses $KCG_STATE"
trap clean_up EXIT
trap 'exit 130' INT TERM
start_broker
arguments=(--bootstrap-servers "127.0.0.1:$port" --kafka-jars "$KAFKA_JARS" --broker-pid "$(<"$KCG_STATE/pids/kafka")")
if [[ $needs == *" postgres "* ]]; then
    if (newest_bin) >/dev/null 2>&1; then
        start_database
        arguments+=(--postgres-url "postgresql://kcg:kcg@$HOST:$database_port/kcg"
            --postgres-pid "$(<"$database/pids/postgres")")
    else
        say "PostgreSQL is not installed (apt-get install postgresql), so nothing is written to it"
    fi
fi
if [[ $needs == *" peers "* ]]; then
    build_peers
    arguments+=(--peers-folder "$PEERS")
fi
# In the background, so that a signal is served at once.
"$binaries/bench" run "${arguments[@]}" --command-line "scripts/bench.sh${*:+ $*}" "$@" 9>&- &
bench_pid=$!
wait "$bench_pid"
