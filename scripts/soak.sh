#!/usr/bin/env bash
# soak.sh [ARGUMENT...]: starts a Kafka and a PostgreSQL for itself alone on 127.0.0.1, kills, restarts, freezes and cuts off
# workers while records flow, and accounts for every record; then runs workers with planted bugs, each of which must be found.
# Six to seven hours, with --quick half of one. Results: target/soak/results.json. All arguments go to the program; --help lists
# them:
#   --kills N --records N --restarts N --zombies N --cuts N --aborts N --storms N --growths N --broker-restarts N
#   --outage-seconds N   how much of what
#   --scenario TEXT    only scenarios with this in their name: kills, restarts, zombies, cuts, aborts, storms, growth, broker,
#                      outage, planted
#   --guarantee G --ordering O --sink S   may be repeated    --seed N   the faults of an earlier run
# Settings from the environment:
#   SOAK_PORT   port of the broker, default 19292; its controller, the listener behind the proxy, the proxy and PostgreSQL get
#               the next four
#   SOAK_STATE  where the broker is kept between runs, default $KCG_CACHE/soak; may be deleted
#   SOAK_OUTPUT where results and logs go, default target/soak; two at once need two of all of these
#   PROFILE     cargo's profile, default release
#   PLANTED=0   leave out the planted bugs, and the second build that they need
. "$(dirname "$0")/lib.sh"
KCG_STATE=${SOAK_STATE:-$KCG_CACHE/soak}
port=${SOAK_PORT:-19292}
listeners=,PROXIED://127.0.0.1:$((port + 2))
advertised=,PROXIED://127.0.0.1:$((port + 3))
# Killed members must be missed soon, or a thousand kills take days. What was read and checked need not stay on disk.
broker_config="group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
log.retention.minutes=1440"
. scripts/broker.sh
# In this machine's own network, and not where the broker is: PostgreSQL's user has to get through.
. tests/cluster/postgres.sh
# shellcheck disable=SC2034 # for its functions
ENTER=() HOST=127.0.0.1
database_port=$((port + 4))
database=/tmp/kcg-soak-$database_port

soak_pid=none

clean_up() {
    trap - EXIT
    if jobs -rp | grep -qx "$soak_pid"; then
        kill "$soak_pid" 2>/dev/null || true
        wait "$soak_pid" 2>/dev/null || true
    fi
    stop_database
    stop_broker
}

# Nothing in there is worth keeping. Functions of the cluster, which see another state folder for as long as they run.
start_database() {
    stop_database
    mkdir -p "$database"
    chmod 755 "$database"
    (KCG_STATE=$database start_postgres "$database_port")
    export SOAK_POSTGRES_URL=postgresql://kcg:kcg@$HOST:$database_port/kcg
}

# "Fast": open transactions are rolled back.
stop_database() {
    KCG_STATE=$database stop_daemon postgres INT 30
    rm -rf "$database"
}

# restart-broker SIGNAL SECONDS: how the program that runs has the broker restarted, which is this script's.
if [[ ${1:-} == restart-broker ]]; then
    stop_daemon kafka "$2" 60
    sleep "$3"
    start_broker
    exit
fi

[[ $KCG_STATE == /* && $KCG_STATE != *[[:space:]]* ]] || die "SOAK_STATE must be an absolute path without spaces"
newest_bin >/dev/null # says how to get it
planted=()
if [[ ${PLANTED:-1} != 0 ]]; then
    build_planted_worker
    planted=(--planted-worker "$CARGO_TARGET_DIR/planted/kafka-consumer-worker")
fi
build_programs kafka-consumer-worker soak

mkdir -p "$KCG_STATE"
exec 9>"$KCG_STATE/lock"
flock -n 9 || die "another soak.sh uses $KCG_STATE"
trap clean_up EXIT
trap 'exit 130' INT TERM
start_broker
start_database
# In the background, so that a signal is served at once.
"$binaries/soak" --bootstrap-servers "127.0.0.1:$port" --proxied-servers "127.0.0.1:$((port + 2))" \
    --proxy-address "127.0.0.1:$((port + 3))" --broker-script "$REPOSITORY/scripts/soak.sh" "${planted[@]}" \
    --output "${SOAK_OUTPUT:-$CARGO_TARGET_DIR/soak}" "$@" 9>&- &
soak_pid=$!
wait "$soak_pid"
