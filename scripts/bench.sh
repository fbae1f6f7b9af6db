#!/usr/bin/env bash
# bench.sh [ARGUMENT...]: starts its own Kafka broker on 127.0.0.1, fills its topics once, and measures the
# worker next to a raw librdkafka loop and other programs. Takes about 30 minutes, 8 with --quick; run nothing
# else at the same time.
#   --rounds N       runs of each case, default 5
#   --quick          a tenth of the records, 2 rounds
#   --case TEXT      only cases whose name contains TEXT
#   --update-docs    write the result into docs/benchmarks.md
#   --perf           draw a flame graph of the worker, and print the functions that take most of its CPU time
#                    (Debian's linux-perf)
#   --peers          also measure others that do the same: loops in Java and Python, Kafka Connect, MirrorMaker,
#                    Parallel Consumer
# Results: target/bench/. Settings from the environment:
#   BENCH_PORT   port of the broker, default 19192; its controller gets the next one, PostgreSQL the one after
#   BENCH_STATE  folder of the broker and its topics (5 GB), kept between runs, default $KCG_CACHE/bench; you may
#                delete it
#   PROFILE      cargo's profile, default release; only a release build shows the real speed
#   KUBECONFIG   a cluster that has the CRD, to measure the idle operator too; nothing is changed in the cluster
. "$(dirname "$0")/lib.sh"
program=bench
KCG_STATE=${BENCH_STATE:-$KCG_CACHE/bench}
port=${BENCH_PORT:-19192}
database_port=$((port + 2))
# The broker deletes old logs at once: the disk must not still write the records of one run during the next
# one. A case gives groups of the protocol Consumer a short session.
broker_config="log.segment.delete.delay.ms=100
group.consumer.min.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000"
. scripts/systems.sh
. scripts/peers.sh

require_state
build_programs kafka-consumer-operator kafka-consumer-worker bench bench-worker
needs=" $("$binaries/bench" needs "$@" | tr '\n' ' ')"
if [[ $needs == *" perf "* ]]; then
    command -v perf >/dev/null || die "--perf needs perf: apt-get install linux-perf"
    # inferno draws the flame graphs.
    cargo_tool inferno 0.12.8 inferno-flamegraph "a minute or two"
    PATH=$cargo_tool:$PATH
    # The released worker is stripped of function names.
    cargo build --profile "${PROFILE:-release}" --locked --workspace --bin kafka-consumer-worker --bin bench-worker \
        --config 'profile.release.package.kafka-consumer-worker.strip="none"' \
        --config 'profile.release.package.bench-worker.strip="none"'
fi

prepare_run
start_brokers 1
arguments=(--bootstrap-servers "127.0.0.1:$port" --kafka-jars "$KAFKA_JARS" --broker-pid "$(<"$KCG_STATE/pids/kafka")")
if [[ $needs == *" postgres "* ]]; then
    if (newest_bin) >/dev/null 2>&1; then
        start_database
        arguments+=(--postgres-url "$database_url" --postgres-pid "$(<"$database/pids/postgres")")
    else
        say "PostgreSQL is not installed (apt-get install postgresql): skipping the cases that write to it"
    fi
fi
if [[ $needs == *" peers "* ]]; then
    build_peers
    arguments+=(--peers-folder "$PEERS")
fi
run_program run "${arguments[@]}" --command-line "scripts/bench.sh${*:+ $*}" "$@"
