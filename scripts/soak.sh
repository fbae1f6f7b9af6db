#!/usr/bin/env bash
# soak.sh [ARGUMENT...]: starts its own Kafka broker and PostgreSQL server on 127.0.0.1, kills, restarts,
# freezes and disconnects workers while records flow, and accounts for every record. Then runs workers with
# seeded bugs, each of which must be found. Takes about nine hours, three quarters of an hour with --quick.
# Results: target/soak/results.json. All arguments go to the program; --help lists them:
#   --kills N --records N --restarts N --zombies N --cuts N --aborts N --storms N --growths N
#   --broker-restarts N --outage-seconds N   how much of each
#   --scenario TEXT    only scenarios whose name contains TEXT: kills, restarts, zombies, cuts, aborts, storms,
#                      growth, broker, outage, seeded
#   --guarantee G --ordering O --sink S   may be repeated
#   --seed N           the faults of an earlier run
# Settings from the environment:
#   SOAK_PORT     port of the broker, default 19292; its controller, the listener behind the proxy, the proxy and
#                 PostgreSQL get the next four
#   SOAK_STATE    folder of the broker, kept between runs, default $KCG_CACHE/soak; you may delete it
#   SOAK_OUTPUT   folder of results and logs, default target/soak; two runs at the same time need different values
#                 of all three
#   PROFILE       cargo's profile, default release
#   SEEDED_BUGS=0 skip the seeded bugs, and the second build that they need
. "$(dirname "$0")/lib.sh"
program=soak
KCG_STATE=${SOAK_STATE:-$KCG_CACHE/soak}
port=${SOAK_PORT:-19292}
database_port=$((port + 4))
listeners=PROXIED:$((port + 2)):$((port + 3))
# The broker must notice killed members soon, or a thousand kills take days. Records that were read and
# checked need not stay on disk.
broker_config="group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
log.retention.minutes=1440"
. scripts/systems.sh

# restart-broker SIGNAL SECONDS: the running program calls this script to restart the broker.
if [[ ${1:-} == restart-broker ]]; then
    stop_broker 1 "$2"
    sleep "$3"
    start_brokers 1
    exit
fi

require_state
newest_bin >/dev/null # fails with the command that installs PostgreSQL
seeded=()
if [[ ${SEEDED_BUGS:-1} != 0 ]]; then
    build_seeded_worker
    seeded=(--seeded-worker "$CARGO_TARGET_DIR/seeded/kafka-consumer-worker")
fi
build_programs kafka-consumer-worker soak

prepare_run
start_brokers 1
start_database
export SOAK_POSTGRES_URL=$database_url
run_program --bootstrap-servers "127.0.0.1:$port" --proxied-servers "127.0.0.1:$((port + 2))" \
    --proxy-address "127.0.0.1:$((port + 3))" --broker-script "$REPOSITORY/scripts/soak.sh" "${seeded[@]}" \
    --output "${SOAK_OUTPUT:-$CARGO_TARGET_DIR/soak}" "$@"
