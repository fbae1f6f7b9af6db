#!/usr/bin/env bash
# soak-brokers.sh [ARGUMENT...]: as soak.sh, with a Kafka cluster of three brokers, which are stopped, killed, frozen
# and isolated one after the other, or lose their leaderships, while records flow (needs root, for a network of its
# own). Takes about a day, three quarters of an hour with --quick. Results: target/soak-brokers/results.json.
# Arguments go to the program, above all:
#   --broker-faults N  how many of each kind, default 100
#   --scenario TEXT    only scenarios whose name contains TEXT: rolling, broker-kills, broker-freezes, isolated-broker,
#                      min-isr, leader-moves, coordinator-moves
#   --guarantee G --sink S   may be repeated
#   --seed N           the faults of an earlier run
# Settings from the environment:
#   SOAK_STATE    folder of the brokers, default $KCG_CACHE/soak-brokers; you may delete it
#   SOAK_OUTPUT   folder of results and logs, default target/soak-brokers
#   PROFILE       cargo's profile, default release
# soak-brokers.sh COMMAND NUMBER...: the running program calls it to perform a fault: the commands of
# tests/cluster/broker.sh, or
#   move-leaders NUMBER       gives all partitions of all topics other leaders, NUMBER times in a row
#   move-coordinators NUMBER  those of the internal topics
. "$(dirname "$0")/lib.sh"
program=soak
export KCG_STATE=${SOAK_STATE:-$KCG_CACHE/soak-brokers}
port=29292
database_port=$((port + 4))
broker_config="group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
log.retention.minutes=1440"
. scripts/systems.sh

kafka_tool() {
    java -Xmx128m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$KAFKA_JARS/*" "$@"
}

# move_leaders NAMES: the topics whose names match. The first replica is the preferred leader: the replicas of each
# partition rotate by one.
move_leaders() {
    local plan=$KCG_STATE/moves.json
    kafka_tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" --describe |
        awk -F '\t' -v names="$1" '
            { for (i = 1; i <= NF; i++) { split($i, pair, ": "); value[pair[1]] = pair[2] } }
            /Leader: / && value["Topic"] ~ names {
                count = split(value["Replicas"], replicas, ",")
                moved = ""
                for (i = 2; i <= count; i++) moved = moved replicas[i] ","
                printf "%s{\"topic\":\"%s\",\"partition\":%s,\"replicas\":[%s%s]}", separator, value["Topic"],
                    value["Partition"], moved, replicas[1]
                separator = ","
            }
            BEGIN { printf "{\"version\":1,\"partitions\":[" }
            END { print "]}" }' >"$plan"
    kafka_tool org.apache.kafka.tools.reassign.ReassignPartitionsCommand --bootstrap-server "$bootstrap" \
        --reassignment-json-file "$plan" --execute >"$KCG_STATE/logs/moves.log" 2>&1
    # It fails if no leader has to change.
    kafka_tool org.apache.kafka.tools.LeaderElectionCommand --bootstrap-server "$bootstrap" --election-type PREFERRED \
        --all-topic-partitions >>"$KCG_STATE/logs/moves.log" 2>&1 || true
}

bootstrap=$HOST:$port,$HOST:$((port + 10)),$HOST:$((port + 20))
case ${1:-} in
    stop | kill | freeze | thaw | start | isolate | join) exec tests/cluster/broker.sh "$@" ;;
    move-leaders | move-coordinators)
        names=.
        [[ $1 != move-coordinators ]] || names=^__
        for ((turn = 0; turn < $2; turn++)); do move_leaders "$names"; done
        exit
        ;;
esac

require_state
[[ $(id -u) == 0 ]] || die "run this as root: the brokers get a network of their own"
if [[ ${KCG_OWN_NETWORK:-} != 1 ]]; then
    newest_bin >/dev/null # fails with the command that installs PostgreSQL
    build_programs kafka-consumer-worker soak
    own_network "$REPOSITORY/scripts/soak-brokers.sh" "$@"
    exit
fi
binaries=$(programs_of "${PROFILE:-release}")
prepare_run
start_brokers 3
start_database
export SOAK_POSTGRES_URL=$database_url
run_program --bootstrap-servers "$KAFKA_BOOTSTRAP_SERVERS" --cluster-script "$REPOSITORY/scripts/soak-brokers.sh" \
    --output "${SOAK_OUTPUT:-$CARGO_TARGET_DIR/soak-brokers}" "$@"
